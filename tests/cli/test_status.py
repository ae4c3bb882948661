# SPDX-License-Identifier: GPL-2.0
"""status, and what of output depends on the terminal."""
import os
import platform
import pty
import re
import subprocess

import features
from cli_world import LBCTL, PIN_DIR, ROOT

# What kernels have since when, of all that xlb can do without.
SINCE = {"atomic exchange": (5, 12), "bpf_check_mtu": (5, 12), "test runs with a device": (5, 15), "native XDP on bonds": (5, 15),
         "bpf_map_lookup_percpu_elem": (5, 19), "XDP_REDIRECT of frames in several buffers": (6, 3)}


def test_status_json(attached):
    status = attached.json("status")
    assert list(status) == ["version", "abi", "attached", "pin_dir", "pin_group", "program", "counters",
                            "nat_ports", "seed", "services", "backends", "devices", "maps", "drops",
                            "warnings", "lacks"]
    assert status["version"] == (ROOT / "VERSION").read_text(encoding="ascii").strip()
    assert status["attached"] is True and status["pin_dir"] == PIN_DIR
    assert (status["services"], status["backends"]) == (3, 3)
    device = next(each for each in status["devices"] if each["device"] == "veth0")
    assert device["mode"] == "native" and device["how"] in ("direct", "dispatcher")
    shown = attached.run("bpftool", "prog", "show", "id", str(device["program"]))
    assert {"direct": " xdp ", "dispatcher": " ext "}[device["how"]] in shown.splitlines()[0]
    assert set(status["drops"].values()) == {0} and len(status["drops"]) == 15
    by_name = {each["map"]: each for each in status["maps"]}
    assert by_name["services"]["used"] == 2 and by_name["services6"]["used"] == 1
    assert by_name["backends"]["used"] == 3
    assert all((each["used"] or 0) <= each["size"] for each in by_name.values())


def test_status_text(attached):
    text = attached.ok("status")
    assert re.search(rf"^pins +{PIN_DIR}$", text, re.M)
    assert re.search(r"^services +3, with 3 backends$", text, re.M)
    assert re.search(r"^veth0 +native +(direct|dispatcher) +\d+$", text, re.M)
    assert re.search(r"^services +2 +\d+ +\d+\.\d%$", text, re.M)
    assert "DROPPED" not in text
    missing = features.no_iterators()
    assert attached.json("status")["counters"] == (None if missing else f"{PIN_DIR}/counters")
    assert ("counters" in attached.pins()) == (not missing)
    # Where there is no table, it is said, and what shows the same.
    assert bool(re.search(rf"^counters +no {PIN_DIR}/counters: .*'lbctl backends list' shows the same$", text, re.M)) == bool(missing)


def warned(world, words):
    """The one warning that has these words, in text and in JSON; None: there is none."""
    text, status = world.ok("status"), world.json("status")
    assert re.findall(r"^warning: (.*)$", text, re.M) == status["warnings"]
    lines = [line for line in status["warnings"] if words in line]
    assert len(lines) <= 1, lines
    return lines[0] if lines else None


def test_smallest_maps(world):
    """With room for one of each."""
    world.ok("attach", "veth0", "--max-flows", "1024", "--max-backends", "2", "--max-services", "1")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "198.51.100.2")
    assert {each["map"]: each["used"] for each in world.json("status")["maps"]}["backends"] == 1


def test_warnings(world):
    """Each comes with its cause, and goes with it; text and JSON say the same."""
    world.lbctl("attach", "veth0", "--max-flows", "1024", "--max-backends", "11", "--mode", "generic", "--nat-ports", "2000-3000")
    service = "192.0.2.10:80/tcp"
    world.ok("services", "add", service)
    assert warned(world, "generic mode, which") == "veth0: generic mode, which is several times slower than native"

    for value, wanted in (("0", True), ("1", False)):
        world.run("sysctl", "-qw", f"net.ipv4.conf.veth0.forwarding={value}")
        line = warned(world, "forwarding")
        assert bool(line) == wanted and (not wanted or line.startswith("net.ipv4.conf.veth0.forwarding is 0: ")), line

    world.ok("backends", "add", service, "198.18.0.1:80")
    assert warned(world, "no route") == "no route to 1 backend, 198.18.0.1:80"
    world.run("ip", "route", "add", "198.18.0.0/15", "via", "198.51.100.2")
    size = next(each["size"] for each in world.json("status")["maps"] if each["map"] == "backends")
    used = -(-size * 9 // 10)  # from 90 % on
    for last in range(1, used - 1):
        world.ok("backends", "add", service, f"198.51.100.{last + 10}:80")
    assert not warned(world, "no route") and not warned(world, "full")
    world.ok("backends", "add", service, "198.51.100.99:80")
    assert warned(world, "full") == f"the map backends is {used * 100 // size} % full ({used} of {size})"

    assert not warned(world, "ip_local_port_range")
    world.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=2500 60999")
    assert warned(world, "ip_local_port_range").startswith(
        "net.ipv4.ip_local_port_range (2500 to 60999) overlaps the ports for nat (2000 to 3000): ")

    world.ok("detach", "--all")
    world.lbctl("attach", "veth0", "--max-flows", "1024", "--mode", "native")
    assert not warned(world, "generic mode, which")


def test_gro_in_generic_mode(world):
    """What it merges is longer than what goes out again."""
    world.ok("attach", "veth0", "--max-flows", "1024", "--mode", "generic")
    for state in ("on", "off"):
        world.run("ethtool", "-K", "veth0", "gro", state)
        assert any("ethtool -K veth0 gro off" in line for line in world.json("status")["warnings"]) == (state == "on")
    world.ok("detach", "veth0")
    world.run("ethtool", "-K", "veth0", "gro", "on")
    world.ok("attach", "veth0", "--max-flows", "1024", "--mode", "native")
    assert not any("gro off" in line for line in world.json("status")["warnings"])


def test_what_the_kernel_lacks(attached):
    """By its version; text and JSON say the same, each with what it costs."""
    running = tuple(map(int, platform.release().split(".")[:2]))
    status = attached.json("status")
    wanted = [name for name, since in SINCE.items() if running < since]
    if any(device["how"] == "direct" for device in status["devices"]):
        wanted.append("libxdp dispatcher")
    assert [lack["feature"] for lack in status["lacks"]] == wanted
    since = {lack["feature"]: lack["since"] for lack in status["lacks"]}
    assert all(since[name] == ".".join(map(str, SINCE[name])) for name in wanted if name in SINCE)
    lines = re.findall(r"^this kernel: no (.*)$", attached.ok("status"), re.M)
    assert lines == [f"{lack['feature']}" + (f" (Linux {lack['since']})" if lack["since"] else "")
                     + f": {lack['cost']}" for lack in status["lacks"]]


def test_chain(attached):
    """Alone on the device: one program, ours."""
    (device,) = [each for each in attached.json("status")["devices"] if each["device"] == "veth0"]
    (ours,) = device["chain"]
    assert (ours["name"], ours["id"], ours["ours"]) == ("xlb", device["program"], True)
    shown = attached.run("bpftool", "prog", "show", "id", str(ours["id"]))
    assert f"tag {ours['tag']} " in shown
    assert ours["priority"] == (50 if device["how"] == "dispatcher" else None)


def test_nothing_attached(world):
    result = world.lbctl("status")
    assert (result.status, result.err) == (0, "") and "nothing is attached" in result.out
    status = world.json("status")
    assert status["attached"] is False and status["devices"] == []


def on_terminal(world, *arguments, **environment):
    """What lbctl writes to a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen([*world.enter, LBCTL, *arguments], stdout=follower, close_fds=True,
                          env={**os.environ, "TERM": "xterm", **environment}) as process:
        os.close(follower)
        out = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:		# EIO: lbctl closed it
                break
            if not data:
                break
            out += data
    os.close(leader)
    assert process.returncode == 0
    return out.decode().replace("\r\n", "\n")


def test_colour_on_a_terminal_only(attached):
    plain = attached.ok("backends", "list")
    assert "\033" not in plain
    coloured = on_terminal(attached, "backends", "list", NO_COLOR="")
    assert "\033[32mactive\033[0m" in coloured
    assert re.sub(r"\033\[\d*m", "", coloured) == plain
    assert on_terminal(attached, "backends", "list", NO_COLOR="1") == plain
    assert on_terminal(attached, "backends", "list", TERM="dumb", NO_COLOR="") == plain
    assert "\033" not in on_terminal(attached, "backends", "list", "-o", "json", NO_COLOR="")
