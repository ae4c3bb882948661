# SPDX-License-Identifier: GPL-2.0
"""attach and detach."""
import json
import re
import subprocess

import pytest

from cli_world import PIN_DIR

REDIRECT = 2            # XLB_DEVICE_REDIRECT
PASS = """
__attribute__((section("xdp"), used)) int a_stranger(void *context)
{
	return 2 + !context; /* XDP_PASS */
}
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture(name="stranger", scope="module")
def fixture_stranger(tmp_path_factory):
    """The object of an XDP program that is not ours."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "pass.c").write_text(PASS, encoding="ascii")
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", "pass.c", "-o", "pass.o"], cwd=folder,
                   check=True)
    return str(folder / "pass.o")


def devices(world):
    return {each["device"]: each for each in world.json("status")["devices"]}


def xdp_on(world, device):
    return json.loads(world.run("ip", "-j", "-d", "link", "show", device))[0].get("xdp")


def attach(world, *arguments):
    """Attaches, and returns what it said, but for kernels that have no dispatcher."""
    result = world.lbctl("attach", "--max-flows", "1024", *arguments)
    assert (result.status, result.out) == (0, ""), result
    return [line for line in result.err.splitlines() if "dispatcher" not in line]


def test_trace_by_a_device_that_is_still_there(world):
    """Others were attached, too, and have gone since."""
    gone = ["gone0", "gone1", "gone2"]
    for name in gone:
        world.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
    world.lbctl("attach", *gone, "veth0", "--max-flows", "1024", "--mode", "generic")
    for name in gone:
        world.run("ip", "link", "del", name)
    assert world.json("trace", "198.51.100.7:4242", "192.0.2.10:80/tcp")["verdict"] == "pass"
    world.run("ip", "link", "del", "veth0")
    assert "attached to no device: run `lbctl attach DEV`" in world.fails("trace", "198.51.100.7:4242", "192.0.2.10:80/tcp")


def test_attach_and_detach(world):
    assert world.pins() is None
    qdiscs = world.run("tc", "qdisc", "show")
    attach(world, "veth0")
    assert list(devices(world)) == ["veth0"] and devices(world)["veth0"]["mode"] == "native"
    program = devices(world)["veth0"]["program"]
    assert xdp_on(world, "veth0") and not xdp_on(world, "veth1")
    assert {"xdp", "services", "services6", "backends", "backend_stats", "service_stats", "flows",
            "flows6", "drops", "config"} <= set(world.pins())
    assert world.ok("detach", "veth0") == ""
    assert world.pins() is None
    assert not xdp_on(world, "veth0")
    assert world.run("tc", "qdisc", "show") == qdiscs
    assert "No such file" in subprocess.run([*world.enter, "bpftool", "prog", "show", "id",
                                             str(program)], capture_output=True, text=True,
                                            check=False).stderr


def test_attach_again_changes_nothing(world):
    attach(world, "veth0")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    with world.unchanged():
        attach(world, "veth0")
        attach(world, "veth0", "veth0")


def test_several_devices(world):
    attach(world, "veth0", "veth1")
    assert set(devices(world)) == {"veth0", "veth1"}
    world.ok("detach", "veth0")
    assert set(devices(world)) == {"veth1"} and not xdp_on(world, "veth0")
    assert world.pins()
    world.ok("detach", "--all")
    assert world.pins() is None and not xdp_on(world, "veth1")


def test_a_second_device_later(world):
    attach(world, "veth0")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.ok("attach", "veth1")
    assert set(devices(world)) == {"veth0", "veth1"}
    assert len(world.json("services", "list")) == 1


def mtus(world):
    """By device, as the packet path is told them."""
    entries = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/devices"))
    names = {each["ifindex"]: each["ifname"] for each in json.loads(world.run("ip", "-j", "link"))}
    return {names[entry["formatted"]["key"]]: entry["formatted"]["value"]["mtu"] for entry in entries}


def test_mtu_of_devices(world):
    """For kernels whose routes do not tell it: as it is when attached, and when anything is looked up again."""
    world.run("ip", "link", "set", "veth1", "mtu", "1400")
    attach(world, "veth0")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "203.0.113.5:80")  # behind veth1
    assert mtus(world) == {"veth0": 1500, "veth1": 1400}
    world.run("ip", "link", "set", "veth0", "mtu", "1300")
    attach(world, "veth0")
    assert mtus(world) == {"veth0": 1300, "veth1": 1400}


def test_unknown_device(world):
    assert world.fails("attach", "eth9") == "eth9: no such device"
    assert world.fails("attach", "veth0", "eth9", "veth1") == "eth9: no such device"
    assert world.fails("attach", "x" * 40) == "x" * 40 + ": no such device"
    assert world.pins() is None and not xdp_on(world, "veth0")


def test_detach_what_is_not_attached(world):
    assert "nothing" in world.fails("detach", "veth0")
    attach(world, "veth0")
    assert world.fails("detach", "veth1").startswith("veth1: not attached;")
    assert world.fails("detach", "veth0", "veth1").startswith("veth1: not attached;")
    assert world.fails("detach", "eth9").startswith("eth9: not attached;")
    assert set(devices(world)) == {"veth0"}


def test_detach_all_of_nothing(world):
    assert world.ok("detach", "--all") == ""


def test_detach_keeps_what_it_is_told_to(world):
    attach(world, "veth0")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "198.51.100.5")
    services = world.json("services", "list")
    world.ok("detach", "veth0", "--keep")
    assert not xdp_on(world, "veth0")
    assert world.json("services", "list") == services
    status = world.json("status")
    assert not [each for each in status["devices"] if each["mode"] != "replies"]
    attach(world, "veth0")
    assert world.json("services", "list") == services
    world.ok("detach", "--all")
    assert world.pins() is None


def test_modes(world):
    assert attach(world, "veth0", "--mode", "generic") == []
    assert devices(world)["veth0"]["mode"] == "generic"
    world.ok("detach", "veth0")
    attach(world, "veth0", "--mode", "native")
    assert devices(world)["veth0"]["mode"] == "native"


def test_generic_where_native_was_taken_away(world):
    """By hand: what was written down of the device is not left: a device in generic mode takes no redirect, and sends tags along."""
    def noted():
        (entry,) = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/devices"))
        return entry["formatted"]["value"]

    attach(world, "veth0", "--mode", "native")
    assert noted()["flags"] & REDIRECT and noted()["mode"] == 1
    world.run("ip", "link", "set", "veth0", "xdp", "off")
    world.lbctl("attach", "veth0", "--mode", "generic")
    assert not noted()["flags"] & REDIRECT and noted()["mode"] == 2


def test_no_native_mode(world):
    line = world.fails("attach", "--mode", "native", "bridge0")
    assert line.startswith("bridge0: ") and "native" in line
    assert world.pins() is None
    said = attach(world, "bridge0", "veth0")
    assert len(said) == 1 and said[0].startswith("lbctl: bridge0: ") and "generic" in said[0]
    assert devices(world)["bridge0"]["mode"] == "generic"
    assert devices(world)["veth0"]["mode"] == "native"


def test_loopback(world):
    """What comes in there has not come from outside, and has been everywhere already."""
    assert world.fails("attach", "lo").startswith("lo: ")
    assert world.pins() is None


def test_another_program_in_the_way(world, stranger):
    world.run("ip", "link", "set", "dev", "veth1", "xdp", "obj", stranger, "sec", "xdp")
    before = xdp_on(world, "veth1")
    line = world.fails("attach", "veth1")
    assert "veth1" in line and "a_stranger" in line
    assert world.pins() is None
    # All or none: the first device is given back, and what was made for it.
    line = world.fails("attach", "veth0", "veth1")
    assert "a_stranger" in line
    assert world.pins() is None and not xdp_on(world, "veth0")
    # But one that was attached before stays.
    attach(world, "veth0")
    world.fails("attach", "veth0", "veth1")
    assert set(devices(world)) == {"veth0"}
    assert xdp_on(world, "veth1") == before


def test_sizes_are_fixed(world):
    world.ok("attach", "veth0", "--max-flows", "1024", "--max-services", "64", "--seed", "7",
             "--nat-ports", "2000-3000")
    status = world.json("status")
    assert status["seed"] == 7 and status["nat_ports"] == [2000, 3000]
    for words in (["--max-flows", "4096"], ["--max-services", "4096"], ["--max-backends", "64"],
                  ["--seed", "8"], ["--nat-ports", "2000-4000"]):
        assert "sizes are fixed" in world.fails("attach", "veth1", *words)
    world.ok("attach", "veth1", "--max-services", "64", "--seed", "7")


def test_another_pin_directory(world):
    other = "/sys/fs/bpf/other"
    attach(world, "veth0")
    world.ok("--pin-dir", other, "attach", "veth1", "--max-flows", "1024")
    world.ok("services", "add", "192.0.2.10:80/tcp", "--pin-dir", other)
    assert world.json("services", "list") == []
    result = world.lbctl("services", "list", "-o", "json", env={"XLB_PIN_DIR": other})
    assert len(json.loads(result.out)) == 1
    # The option goes before the environment, and the last option before the first.
    result = world.lbctl("--pin-dir", "/x", "services", "list", "-o", "json", "--pin-dir", PIN_DIR,
                         env={"XLB_PIN_DIR": other})
    assert json.loads(result.out) == []
    world.ok("--pin-dir", other, "detach", "--all")
    assert set(devices(world)) == {"veth0"}


def test_pin_directory_off_bpffs(world):
    line = world.fails("attach", "veth0", "--pin-dir", "/run/xlb")
    assert "BPF file system" in line
    assert not xdp_on(world, "veth0")


def test_pin_directory_of_another_version(world):
    attach(world, "veth0")
    pinned = f"{PIN_DIR}/config"
    value = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", pinned))[0]["value"]
    was = [int(byte, 16) for byte in value]
    update = ["bpftool", "map", "update", "pinned", pinned, "key", "0", "0", "0", "0", "value"]
    world.run(*update, *map(str, [99, *was[1:]]))
    for words in (["status"], ["services", "list"], ["services", "add", "192.0.2.10:80/tcp"],
                  ["attach", "veth1"], ["detach", "--all"], ["detach", "veth0"]):
        result = world.lbctl(*words)
        assert (result.status, result.out) == (1, ""), result
        assert PIN_DIR in result.line and "99" in result.line and "version" in result.line.lower()
    world.run(*update, *map(str, was))
    assert set(devices(world)) == {"veth0"}
    assert xdp_on(world, "veth0") and not xdp_on(world, "veth1")


def test_not_root(world):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    for words in (["attach", "veth0"], ["services", "list"], ["status"], ["detach", "--all"]):
        line = world.fails(*words, prefix=nobody)
        assert "CAP_BPF" in line and "CAP_NET_ADMIN" in line
    assert world.pins() is None


def test_root_without_a_capability(world):
    line = world.fails("attach", "veth0", prefix=["setpriv", "--bounding-set=-net_admin",
                                                  "--inh-caps=-net_admin", "--"])
    assert "CAP_NET_ADMIN" in line and "CAP_BPF" not in line


@pytest.mark.parametrize("words", [["services", "list"], ["services", "show", "192.0.2.10:80/tcp"],
                                   ["services", "add", "192.0.2.10:80/tcp"], ["backends", "list"],
                                   ["backends", "drain", "192.0.2.10:80/tcp", "198.51.100.5"]],
                         ids=" ".join)
def test_nothing_attached(world, words):
    assert "lbctl attach" in world.fails(*words)


def test_kernel_without_types(world):
    """BTF is what the programs are fitted to the running kernel by."""
    world.run("mount", "-t", "tmpfs", "tmpfs", "/sys/kernel/btf")
    assert "BTF" in world.fails("attach", "veth0")
    assert world.pins() is None and not xdp_on(world, "veth0")


def test_kernel_that_is_too_old(world):
    """Which one it is, and which will do: one line. setarch makes uname() say 2.6."""
    line = world.fails("attach", "veth0", prefix=["setarch", "--uname-2.6"])
    assert re.fullmatch(r"Linux 2\.6\.\S+ is too old: xlb needs at least Linux 5\.10", line)
    assert world.pins() is None and not xdp_on(world, "veth0")


def test_bpffs_is_mounted_at_need(world):
    world.run("umount", "/sys/fs/bpf")
    attach(world, "veth0")
    assert "xdp" in world.pins()
    world.ok("detach", "veth0")
    assert world.pins() is None


def uplink(world):
    """The device that config names, by index."""
    pinned = f"{PIN_DIR}/config"
    return json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", pinned))[0]["formatted"][
        "value"]["uplink"]


def index(world, device):
    return json.loads(world.run("ip", "-j", "link", "show", device))[0]["ifindex"]


def test_device_that_goes_away(world):
    attach(world, "veth0", "veth1")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    assert uplink(world) == index(world, "veth0")
    world.run("ip", "link", "del", "veth0")
    assert set(devices(world)) == {"veth1"}
    assert world.fails("detach", "veth0").startswith("veth0: not attached;")
    # The next command that attaches takes another one for the first.
    attach(world, "bridge0")
    assert uplink(world) == index(world, "veth1")
    world.run("ip", "link", "del", "veth1")
    world.ok("detach", "bridge0")
    assert world.pins() is None


def test_device_that_comes_again(world):
    attach(world, "veth0")
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.run("ip", "link", "del", "veth0")
    assert devices(world) == {} and len(world.json("services", "list")) == 1
    world.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "peer0")
    attach(world, "veth0")
    assert uplink(world) == index(world, "veth0")
    assert len(world.json("services", "list")) == 1
    world.run("ip", "link", "del", "veth0")
    world.ok("detach", "--all")
    assert world.pins() is None
