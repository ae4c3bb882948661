# SPDX-License-Identifier: GPL-2.0
"""Command lines: help, and everything that is wrong before anything is tried."""
import json
import re
import shutil
import subprocess

import pytest

from cli_world import LBCTL, ROOT, run_lbctl, usage_error

COMMANDS = [
    "attach", "detach", "status",
    "services list", "services show", "services add", "services set", "services del",
    "backends list", "backends show", "backends add", "backends set", "backends drain",
    "backends del", "backends sync", "trace", "help", "version",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_every_command(command, option):
    result = run_lbctl(*command.split(), option)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"Usage: lbctl {command} [OPTION]...")
    assert re.search(r"^  -h, --help ", result.out, re.M)
    assert all(len(line) < 100 for line in result.out.splitlines()), result


@pytest.mark.parametrize("command", COMMANDS)
def test_help_command_says_the_same(command):
    assert run_lbctl("help", *command.split()).out == run_lbctl(*command.split(), "--help").out


def test_help_lists_every_command():
    result = run_lbctl("--help")
    assert (result.status, result.err) == (0, "")
    listed = result.out.split("Commands:\n")[1].split("\n\n")[0]
    assert [re.split(r"  +", line.strip())[0] for line in listed.splitlines()] == COMMANDS
    assert run_lbctl("help").out == run_lbctl("-h").out == result.out


@pytest.mark.parametrize("group", ["services", "backends"])
def test_help_of_a_group(group):
    result = run_lbctl(group, "--help")
    assert (result.status, result.err) == (0, "")
    for command in COMMANDS:
        assert (f"  {command} " in result.out) == command.startswith(group + " ")
    assert run_lbctl("help", group).out == result.out


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-V"]])
def test_version(words):
    version = (ROOT / "VERSION").read_text(encoding="ascii").strip()
    result = run_lbctl(*words)
    assert (result.status, result.err) == (0, "")
    assert re.fullmatch(rf"lbctl {re.escape(version)} \(ABI \d+\)\n", result.out)
    for place in (["-o", "json", *words], [*words, "-o", "json"]):
        if place[0].startswith("-") or words[0] == "version":
            assert json.loads(run_lbctl(*place).out)["version"] == version


VIP, BACKEND = "192.0.2.10:80/tcp", "10.0.0.5:8080"

WRONG = [
    # what, the words, and what the line says of it
    ("no command", [], "a command is missing"),
    ("unknown command", ["frob"], "unknown command 'frob'"),
    ("unknown option in front", ["--frob", "status"], "unknown or ambiguous option '--frob'"),
    ("no word of a group", ["services"], "services: a command is missing, one of list, show, add"),
    ("unknown word of a group", ["backends", "frob"], "backends: unknown command 'frob', not one"),
    ("a word that is not all of it", ["service", "list"], "unknown command 'service'"),
    ("help of what is not there", ["help", "services", "frob"], "unknown command 'services frob'"),
    ("help of too much", ["help", "attach", "x"], "unknown command 'attach x'"),
    ("help of far too much", ["help", "a", "b", "c"], "unexpected 'c'"),
    ("unknown long option", ["status", "--frob"], "unknown or ambiguous option '--frob'"),
    ("ambiguous option", ["attach", "--max", "1", "lo"], "unknown or ambiguous option '--max'"),
    ("unknown short option", ["status", "-Q"], "unknown option '-Q'"),
    ("option of another command", ["status", "--force"], "unknown or ambiguous option '--force'"),
    ("value missing", ["attach", "lo", "--mode"], "option '--mode' needs a value"),
    ("value too much", ["detach", "--all=3"], "option '--all' takes no value: '--all=3'"),
    ("operand too much", ["status", "x"], "unexpected 'x'"),
    ("operand too much in a list", ["services", "list", "x"], "unexpected 'x'"),
    ("no device", ["attach"], "DEV... is missing"),
    ("no service", ["services", "add"], "SERVICE is missing"),
    ("no backend", ["backends", "add", VIP], "ADDR[:PORT] is missing"),
    ("backend too much", ["backends", "del", VIP, BACKEND, "x"], "unexpected 'x'"),
    ("output unknown", ["status", "-o", "xml"], "--output xml: not text or json"),
    ("output unknown in front", ["-o", "yaml", "status"], "--output yaml: not text or json"),
    ("no pin directory", ["status", "--pin-dir", ""], "--pin-dir: an empty name"),
    ("detach nothing", ["detach"], "DEV or --all is missing"),
    ("detach too much", ["detach", "--all", "lo"], "'lo' beside --all"),
    ("mode", ["attach", "--mode", "fast", "lo"], "--mode fast: not auto, native or generic"),
    ("priority", ["attach", "-p", "-1", "lo"], "--priority -1: not a number"),
    ("priority not a number", ["attach", "-p", "5x", "lo"], "--priority 5x: not a number"),
    ("priority empty", ["attach", "--priority=", "lo"], "--priority : not a number"),
    ("size 0", ["attach", "--max-services", "0", "lo"], "--max-services 0: not a number from 1"),
    ("size too large", ["attach", "--max-services", "40000", "lo"], "40000: not a number from 1"),
    ("no backend", ["attach", "--max-backends", "1", "lo"], "--max-backends 1: not a number from 2"),
    ("backends", ["attach", "--max-backends", "99999999", "lo"], "--max-backends 99999999: not"),
    ("flows", ["attach", "--max-flows", "1e6", "lo"], "--max-flows 1e6: not a number"),
    ("few flows", ["attach", "--max-flows", "1023", "lo"], "1023: not a number from 1024 to"),
    ("flows beyond 64 bits", ["attach", "--max-flows", "9" * 30, "lo"], "9" * 30 + ": not a num"),
    ("ports are no range", ["attach", "--nat-ports", "1024", "lo"], "1024: not a range of ports"),
    ("first port", ["attach", "--nat-ports", "x-9", "lo"], "--nat-ports x: not a number from 1024"),
    ("first port 0", ["attach", "--nat-ports", "0-9", "lo"], "--nat-ports 0: not a number from 1024"),
    ("ports of others", ["attach", "--nat-ports", "1023-2000", "lo"], "--nat-ports 1023: not a number from 1024"),
    ("three ports", ["attach", "--nat-ports", "2000-2002", "lo"], "2000-2002: fewer than 4 ports"),
    ("last port", ["attach", "--nat-ports", "2000-65536", "lo"], "--nat-ports 65536: not a number"),
    ("ports backwards", ["attach", "--nat-ports", "2009-2008", "lo"], "2009-2008: begins above its end"),
    ("ports long", ["attach", "--nat-ports", "1" * 99 + "-2", "lo"], "not a range of ports"),
    ("seed", ["attach", "--seed", "4294967296", "lo"], "--seed 4294967296: not a number from 0"),
    ("forward", ["services", "add", VIP, "-f", "gre"], "--forward gre: no such forwarding"),
    ("scheduler", ["services", "add", VIP, "-s", "wrr"], "--scheduler wrr: no such scheduler; "
     "there are maglev, rr, lc, random, source"),
    ("forward of sync", ["backends", "sync", "--forward", "gre"], "--forward gre: no such forw"),
    ("affinity", ["services", "add", VIP, "--affinity", "86401"], "--affinity 86401: not a number"),
    ("affinity below 0", ["services", "set", VIP, "--affinity", "-1"], "--affinity -1: not a num"),
    ("ranges of no form", ["services", "add", VIP, "--source-ranges", "10.0.0/8"],
     "--source-ranges: 10.0.0/8: not an address or ADDR/LENGTH"),
    ("ranges with bits", ["services", "set", VIP, "--source-ranges", "192.0.2.0/24,10.0.0.1/8"],
     "--source-ranges: 10.0.0.1/8: has bits behind its prefix, is 10.0.0.0/8 meant?"),
    ("ranges twice", ["services", "add", VIP, "--source-ranges", "10.0.0.0/8,10.0.0.0/8"],
     "--source-ranges: 10.0.0.0/8: is there twice"),
    ("ranges of IPv6", ["services", "add", VIP, "--source-ranges", "10.0.0.0/8,2001:db8::/32"],
     "--source-ranges: 2001:db8::/32: is IPv6, but the VIP is IPv4"),
    ("ranges of IPv4", ["services", "set", "[2001:db8::10]:80/tcp", "--source-ranges", "0.0.0.0/0"],
     "--source-ranges: 0.0.0.0/0: is IPv4, but the VIP is IPv6"),
    ("ranges too long", ["services", "add", VIP, "--source-ranges", "10.0.0.0/33"], "not 0..32"),
    ("MSS", ["services", "add", VIP, "--mss", "535"], "--mss 535: not a size of segments from 536"),
    ("MSS above", ["services", "set", VIP, "--mss", "65496"], "--mss 65496: not a size"),
    ("MSS of UDP", ["services", "add", "192.0.2.10:53/udp", "--mss", "1400"], "--mss is for TCP"),
    ("outer source", ["services", "add", VIP, "-f", "ipip", "--encap-source", "eth0"],
     "--encap-source eth0: not an address"),
    ("outer source with bits", ["services", "add", VIP, "-f", "ipip", "--encap-source",
                                "172.16.0.1/16"], "172.16.0.1/16: has bits behind its prefix"),
    ("outer source of nobody", ["services", "add", VIP, "-f", "gue", "--encap-source", "127.0.0.1"],
     "127.0.0.1: is a loopback address"),
    ("outer source too wide", ["services", "add", VIP, "-f", "ipip", "--encap-source", "10.0.0.0/7"],
     "10.0.0.0/7: a prefix from /8 to /32"),
    ("outer source with nat", ["services", "add", VIP, "--encap-source", "192.0.2.1"],
     "--encap-source is for --forward ipip and gue: nat puts no header around packets"),
    ("outer source with l2", ["services", "set", VIP, "-f", "l2", "--encap-source", "192.0.2.1"],
     "--encap-source is for --forward ipip and gue: l2 puts"),
    ("GUE port", ["services", "add", VIP, "-f", "gue", "--gue-port", "0"], "--gue-port 0: not a po"),
    ("GUE port with nat", ["services", "add", VIP, "--gue-port", "6080"],
     "--gue-port is for --forward gue: nat sends packets without UDP around them"),
    ("GUE port with ipip", ["services", "set", VIP, "-f", "ipip", "--gue-port", "6080"],
     "--gue-port is for --forward gue: ipip"),
    ("GUE checksum", ["services", "add", VIP, "-f", "gue", "--gue-checksum", "1"], "--gue-checksum 1: not on or off"),
    ("GUE checksum with ipip", ["services", "add", VIP, "-f", "ipip", "--gue-checksum", "on"],
     "--gue-checksum is for --forward gue: ipip sends packets without UDP around them"),
    ("echo", ["services", "add", VIP, "--echo", "yes"], "--echo yes: not on or off"),
    ("name with a blank", ["services", "add", VIP, "-n", "a b"], "--name a b: a name has no blank"),
    ("name with an escape", ["services", "add", VIP, "-n", "\033[31m"], "--name ?[31m: a name has"),
    ("name too long", ["services", "add", VIP, "-n", "n" * 160], "nnn...: a name of 160 char"),
    ("nothing to set", ["services", "set", VIP], "nothing to set"),
    ("nothing to set on it", ["backends", "set", VIP, BACKEND], "nothing to set"),
    ("weight", ["backends", "add", VIP, BACKEND, "-w", "65536"], "--weight 65536: not a weight"),
    ("weight below 0", ["backends", "add", VIP, BACKEND, "-w", "-1"], "--weight -1: not a weight"),
    ("weight no number", ["backends", "set", VIP, BACKEND, "-w", "x"], "--weight x: not a weight"),
    ("state", ["backends", "set", VIP, BACKEND, "--state", "free"], "--state free: not active"),
    ("VIP without protocol", ["services", "add", "192.0.2.10:80"], "192.0.2.10:80"),
    ("VIP without port", ["services", "add", "192.0.2.10/tcp"], "192.0.2.10"),
    ("VIP of sctp", ["services", "add", "192.0.2.10:80/sctp"], "sctp"),
    ("port 0", ["services", "add", "192.0.2.10:0/tcp"], "0: not a port"),
    ("port 65536", ["services", "add", "192.0.2.10:65536/tcp"], "65536: not a port"),
    ("port no number", ["services", "add", "192.0.2.10:http/tcp"], "http: not a port"),
    ("octet", ["services", "add", "192.0.2.256:80/tcp"], "192.0.2.256: not an IPv4 or IPv6 addr"),
    ("name as address", ["services", "add", "localhost:80/tcp"], "localhost: not an IPv4 or IPv6"),
    ("IPv6 without brackets", ["services", "add", "2001:db8::10:80/tcp"], "2001:db8::10"),
    ("bracket open", ["services", "add", "[2001:db8::10:80/tcp"], "2001:db8::10"),
    ("empty", ["services", "add", ""], "services add"),
    ("unspecified", ["services", "add", "0.0.0.0:80/tcp"], "0.0.0.0"),
    ("unspecified IPv6", ["services", "add", "[::]:80/tcp"], "::"),
    ("multicast", ["services", "add", "224.0.0.1:80/tcp"], "224.0.0.1"),
    ("loopback", ["backends", "add", VIP, "127.0.0.1"], "127.0.0.1"),
    ("broadcast", ["backends", "add", VIP, "255.255.255.255"], "255.255.255.255"),
    ("backend's address", ["backends", "add", VIP, "10.0.0"], "10.0.0: not an IPv4 or IPv6"),
    ("backend's port", ["backends", "add", VIP, "10.0.0.5:0"], "0: not a port"),
    ("backend with protocol", ["backends", "add", VIP, "10.0.0.5:80/tcp"], "80/tcp"),
    ("filter of a list", ["backends", "list", "192.0.2.10"], "192.0.2.10"),
]


@pytest.mark.parametrize("words, said", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_command_line(words, said):
    assert said in usage_error(run_lbctl(*words))


def test_hint_names_the_command():
    assert run_lbctl("services", "add").line.endswith("; try 'lbctl services add --help'")
    assert run_lbctl("frob").line.endswith("; try 'lbctl --help'")
    assert run_lbctl("backends", "x").line.endswith("; try 'lbctl backends --help'")


def test_error_is_one_line_whatever_the_token():
    line = usage_error(run_lbctl("services", "add", "1\n2\033[2J:80/tcp"))
    assert "1 2?[2J" in line


def test_full_disk_is_no_success():
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([LBCTL, "--help"], stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False)
    assert done.returncode == 1
    assert done.stderr == "lbctl: standard output: No space left on device\n"


def check_man(page):
    return subprocess.run([ROOT / "scripts/check-man", LBCTL, page], capture_output=True, text=True,
                          check=False)


def test_man_page_agrees_with_help():
    done = check_man(ROOT / "Documentation/lbctl.8")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("old, new, said", [
    (".It Fl \\-seed Ar N\n", "", "attach: '--seed N' of --help is not in the man page"),
    (".It Fl k , Fl \\-keep\n", ".It Fl k , Fl \\-keep-it\n",
     "detach: '-k, --keep-it' of the man page is not in --help"),
    ("Cm nat | dnat | l2 | ipip | gue\nHow", "Cm nat | dnat | gue\nHow",
     "services add: '-f, --forward nat|dnat|gue' of the man page is not in --help"),
    (".Ss lbctl version\n", ".Ss lbctl edition\n",
     "commands: 'edition' of the man page is not in --help"),
])
def test_check_man_sees_differences(tmp_path, old, new, said):
    page = (ROOT / "Documentation/lbctl.8").read_text(encoding="utf-8")
    assert old in page
    (tmp_path / "lbctl.8").write_text(page.replace(old, new), encoding="utf-8")
    done = check_man(tmp_path / "lbctl.8")
    assert done.returncode == 1
    assert f"check-man: {said}\n" in done.stdout


def test_man_page_is_well_formed():
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    done = subprocess.run(["mandoc", "-Tlint", "-Wstyle", ROOT / "Documentation/lbctl.8"],
                          capture_output=True, text=True, check=False)
    # References are looked up in this machine's index of pages, which says nothing of ours.
    found = [line for line in done.stdout.splitlines() if "referenced manual" not in line]
    assert found == []
