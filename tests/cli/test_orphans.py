# SPDX-License-Identifier: GPL-2.0
"""An xlb whose pins are gone, and programs of others: told apart, named, and left alone unless the user says so."""
import json
import re
import subprocess

import pytest

from cli_world import PIN_DIR
from test_attach import PASS, attach, devices, fixture_stranger, xdp_on  # noqa: F401 (a fixture)

VIP = "192.0.2.10:80/tcp"
OTHER = "/sys/fs/bpf/other"


def filters(world, device):
    return world.run("tc", "filter", "show", "dev", device, "ingress")


@pytest.fixture(name="orphan")
def fixture_orphan(world):
    """Attached to veth0, with a backend behind veth1; then the pins are removed."""
    world.qdiscs = world.run("tc", "qdisc", "show")
    attach(world, "veth0")
    world.ok("services", "add", VIP)
    world.ok("backends", "add", VIP, "203.0.113.5:80")
    world.program = devices(world)["veth0"]["program"]
    world.run("rm", "-r", PIN_DIR)
    assert "xlb_ingress" in filters(world, "veth0") and "xlb_ingress" in filters(world, "veth1")
    return world


def is_named(world, line, device="veth0"):
    """The one program, where it is, and what to do about it."""
    assert line.startswith(f"{device}: an xlb is attached (id {world.program}) whose pins are gone"), line
    assert f"lbctl detach {device}" in line and "xdp-loader" not in line, line


def test_status_names_it(orphan):
    status = orphan.json("status")
    assert status["attached"] is False and status["devices"] == []
    (line,) = status["warnings"]
    is_named(orphan, line)
    text = orphan.ok("status")
    assert f"warning: {line}\n" in text and "nothing is attached" not in text
    attach(orphan, "veth1")
    is_named(orphan, next(line for line in orphan.json("status")["warnings"] if "pins are gone" in line))


def test_attach_says_what_to_do(orphan):
    if xdp_on(orphan, "veth0")["prog"]["id"] != orphan.program:
        pytest.skip("in a dispatcher it is in nobody's way")
    is_named(orphan, orphan.fails("attach", "veth0"))
    assert orphan.pins() is None and xdp_on(orphan, "veth0")


def test_all_does_not_mean_it(orphan):
    """It may be of another mount namespace, and do its work."""
    is_named(orphan, orphan.fails("detach", "--all"))
    attach(orphan, "veth1")
    result = orphan.lbctl("detach", "--all")
    assert result.status == 1 and orphan.pins() is None
    is_named(orphan, result.line)
    assert xdp_on(orphan, "veth0") and not xdp_on(orphan, "veth1")
    assert "xlb_ingress" in filters(orphan, "veth0") and "xlb_ingress" in filters(orphan, "veth1")


def test_detach_takes_it_away(orphan):
    """With its filters, also on devices where it only watched for replies, and the qdiscs that it made."""
    result = orphan.lbctl("detach", "veth0")
    assert (result.status, result.line) == (0, f"veth0: an xlb without pins was taken away (id {orphan.program})")
    assert not xdp_on(orphan, "veth0")
    assert orphan.run("tc", "qdisc", "show") == orphan.qdiscs
    assert orphan.fails("detach", "veth0").startswith(f"{PIN_DIR}: nothing there;")
    assert orphan.json("status")["warnings"] == []
    attach(orphan, "veth0")


def test_detach_leaves_what_has_pins(orphan):
    """A new xlb on another device, whose filters are beside those of the old one."""
    attach(orphan, "veth1")
    orphan.ok("services", "add", VIP)
    assert filters(orphan, "veth1").count("direct-action") == 2
    assert orphan.lbctl("detach", "veth0").status == 0
    assert not xdp_on(orphan, "veth0") and "xlb" not in filters(orphan, "veth0")
    assert filters(orphan, "veth1").count("direct-action") == 1
    assert set(devices(orphan)) == {"veth1"} and len(orphan.json("services", "list")) == 1


def test_pins_elsewhere(world):
    """Another xlb of this node has its pins: its devices are its own."""
    attach(world, "veth0")
    attach(world, "veth1", "--pin-dir", OTHER)
    program = world.json("status", "--pin-dir", OTHER)["devices"][0]["program"]
    world.run("rm", "-r", PIN_DIR)
    before = filters(world, "veth1")
    (line,) = world.json("status")["warnings"]
    assert line.startswith("veth0: ")
    assert world.fails("detach", "--all").startswith("veth0: an xlb is attached")
    for words in (["veth1"], ["veth0", "veth1"]):
        line = world.fails("detach", *words)
        assert line == f"veth1: the xlb that is attached there is pinned in {OTHER}: use that --pin-dir"
    assert xdp_on(world, "veth0")
    if xdp_on(world, "veth1")["prog"]["id"] == program:
        line = world.fails("attach", "veth1")
        assert f"another xlb is attached (id {program}), pinned in {OTHER};" in line and "xdp-loader" not in line
    assert world.lbctl("detach", "veth0").status == 0
    assert not xdp_on(world, "veth0") and filters(world, "veth1") == before
    assert world.json("status", "--pin-dir", OTHER)["devices"][0]["program"] == program
    assert world.ok("detach", "--all") == "" and xdp_on(world, "veth1")


def test_without_a_bpf_file_system(world):
    attach(world, "veth0")
    device = devices(world)["veth0"]
    world.program = device["program"]
    world.run("umount", "/sys/fs/bpf")
    text, warnings = world.ok("status"), world.json("status")["warnings"]
    assert warnings[0] == f"{PIN_DIR}: no BPF file system is mounted there: what was pinned, if anything, is out of sight"
    assert f"warning: {warnings[0]}\n" in text and "nothing is attached" not in text
    if device["how"] == "dispatcher":
        return  # with libxdp's own pins our program has gone, too: an empty dispatcher is left
    is_named(world, warnings[1])
    assert world.lbctl("detach", "veth0").status == 0 and not xdp_on(world, "veth0")


def test_mounting_is_told(world):
    """Who works in a mount namespace that ends has pins that end with it."""
    world.run("umount", "/sys/fs/bpf")
    assert any("a BPF file system was mounted on /sys/fs/bpf" in line for line in attach(world, "veth0"))
    assert not any("mounted" in line for line in attach(world, "veth1"))
    assert set(devices(world)) == {"veth0", "veth1"}


def test_in_a_network_namespace_by_ip(world):
    """`ip netns exec` gives the command a /sys of its own, in which pins are lost as it ends."""
    world.run("ip", "netns", "add", "inner")
    world.run("ip", "-n", "inner", "link", "add", "in0", "type", "veth", "peer", "name", "in1")
    result = world.lbctl("attach", "in0", prefix=["ip", "netns", "exec", "inner"])
    assert result.status == 0 and "with `ip netns exec`: as this command" in result.err
    inside = ["nsenter", "--net=/run/netns/inner"]
    program = json.loads(world.run(*inside, "ip", "-j", "-d", "link", "show", "in0"))[0]["xdp"]["prog"]["id"]
    if json.loads(world.run("bpftool", "-j", "prog", "show", "id", str(program)))["name"] != "xlb":
        pytest.skip("with libxdp's pins our program in the dispatcher has gone, too")
    assert "in0: an xlb is attached" in world.lbctl("status", prefix=inside).out
    assert world.lbctl("detach", "in0", prefix=inside).status == 0
    assert "xdp" not in json.loads(world.run(*inside, "ip", "-j", "-d", "link", "show", "in0"))[0]


def test_a_name_is_not_enough(world, tmp_path):
    """A stranger that is called xlb is a stranger."""
    (tmp_path / "xlb.c").write_text(PASS.replace("a_stranger", "xlb"), encoding="ascii")
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", "xlb.c", "-o", "xlb.o"], cwd=tmp_path, check=True)
    world.run("ip", "link", "set", "dev", "veth0", "xdp", "obj", str(tmp_path / "xlb.o"), "sec", "xdp")
    assert world.json("status")["warnings"] == []
    assert world.ok("detach", "--all") == ""
    assert world.fails("detach", "veth0").startswith(f"{PIN_DIR}: nothing there;")
    assert "another XDP program is attached" in world.fails("attach", "veth0")
    assert xdp_on(world, "veth0")


HOLD = "import ctypes, sys; c = ctypes.CDLL('libbpf.so.1'); assert c.bpf_obj_get(b'/sys/fs/bpf/stranger') > 0; print(1, flush=True); sys.stdin.read()"


def test_who_is_in_the_way(world, stranger):
    """Name, id, who loaded it, who holds it, and what to do."""
    caps = "+bpf,+net_admin,+perfmon,+sys_admin"
    world.run("chmod", "777", "/sys/fs/bpf")
    with open(stranger, "rb") as object_file:  # in a folder that is root's alone
        subprocess.run([*world.enter, "sh", "-c", "cat >/run/stranger.o; chmod 644 /run/stranger.o; chmod 755 /run"],
                       stdin=object_file, check=True)
    world.run("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}",
              "bpftool", "prog", "load", "/run/stranger.o", "/sys/fs/bpf/stranger")
    world.run("bpftool", "net", "attach", "xdp", "pinned", "/sys/fs/bpf/stranger", "dev", "veth0")
    program = xdp_on(world, "veth0")["prog"]["id"]
    advice = r"\); detach it, or load it through libxdp's dispatcher \(xdp-loader load veth0 \.\.\.\), .*"
    assert re.fullmatch(rf"veth0: another XDP program is attached \(id {program}, a_stranger, loaded by daemon" + advice,
                        world.fails("attach", "veth0"))
    with subprocess.Popen([*world.enter, "python3", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert re.fullmatch(rf"veth0: another XDP program is attached \(id {program}, a_stranger, loaded by daemon, "
                            r"held by python3 \(process \d+\)" + advice, world.fails("attach", "veth0"))
        holder.stdin.close()
    assert xdp_on(world, "veth0")["prog"]["id"] == program
