# SPDX-License-Identifier: GPL-2.0
"""xlb beside other XDP programs on one device, by libxdp's dispatcher: each comes and goes in every order while packets flow, and nobody
touches what is not theirs. This needs a kernel that lets programs replace functions, as those in the virtual machines do (but 5.10, which
has the reason said once)."""

import contextlib
import itertools
import json
import pathlib
import re
import subprocess
import sys

import libxdp
import pytest
import traffic
import world
from conftest import PORT, VIPS
from streams import Stream
from world import NODE, TOP

sys.path.append(str(TOP / "tests/api"))
from apiserver import ApiServer  # noqa: E402

pytestmark = [pytest.mark.whole, pytest.mark.kernels(since=(6, 1))]

CHAIN_OBJECT = TOP / "build/tests/lib/chain.bpf.o"
TAG_OBJECT = TOP / "build/tests/lib/tag.bpf.o"
OTHER = TOP / "build/tests/other/lbctl"
PRIORITIES = {"xdpfilt_alw_all": 10, "early": 20, "xlb": 50, "late": 80}
LINE = re.compile(r"^ => +(\d+) +(\S+) +(\d+) +([0-9a-f]{16}) +XDP_PASS")


def chain(device="eth0"):
    """Who is on the device, in order: (priority, name, id, tag)."""
    lines = world.run("xdp-loader", "status", device).stdout.splitlines()
    return [(int(match[1]), match[2], int(match[3]), match[4]) for match in map(LINE.match, lines) if match]


def others(device="eth0"):
    return [entry for entry in chain(device) if entry[1] != "xlb"]


def names(device="eth0"):
    return [entry[1] for entry in chain(device)]


def come(name):
    if name == "xlb":
        before = others()
        world.lbctl("attach", "eth0")
        assert others() == before
    else:
        libxdp.load("eth0", CHAIN_OBJECT, name)


def go(name):
    if name == "xlb":
        before = others()
        world.lbctl("detach", "eth0", "--keep")
        assert others() == before
    else:
        libxdp.unload("eth0", name)


def seen(name, device="eth0"):
    """How many packets a program of ours here counted."""
    (number,) = [entry[2] for entry in chain(device) if entry[1] == name]
    (bss,) = json.loads(world.run("bpftool", "-j", "prog", "show", "id", number).stdout)["map_ids"]
    (section,) = json.loads(world.run("bpftool", "-j", "map", "dump", "id", bss).stdout)[0]["formatted"]["value"].values()
    return section[0]["seen"]


def attach_by(build):
    """An upgrade loads twice what an attach does: on an emulated machine that is not alone this takes a minute."""
    return world.run(build, "attach", "eth0", timeout=240)


@contextlib.contextmanager
def passing_by(net):
    """A stream to the node itself, which is none of ours."""
    served = NODE.fork(traffic.serve, "node", 8080)
    try:
        assert served.stdout.readline() == "ready\n"
        with Stream(net.client, "192.0.2.1", 8080):
            yield
    finally:
        served.kill()


def to_the_vip(net):
    return Stream(net.client, VIPS[4], PORT)


@pytest.fixture
def shared(net):
    """The world, where the kernel lets programs share a device."""
    net.place = net.neighbour(1, "eth1")
    try:
        libxdp.load("eth0", CHAIN_OBJECT, "early")
    except world.Failed:
        pass
    if names() != ["early"]:
        pytest.skip("this kernel does not take libxdp's dispatcher, or not programs like xlb into it")
    libxdp.unload("eth0", "early")
    return net


@pytest.mark.every_run
@pytest.mark.kernels(before=(6, 1))
def test_programs_can_share_a_device(shared):
    """Where they cannot, this is skipped, and says so; the others here need not be dealt to such a kernel."""
    assert not chain() and shared.place


PROGRAMS = ("early", "xlb", "late")
# Each order of coming once, and each order of going.
ORDERS = list(zip(itertools.permutations(PROGRAMS), reversed(list(itertools.permutations(PROGRAMS)))))


@pytest.mark.parametrize("coming,going", ORDERS, ids=["-".join(coming) + "," + "-".join(going) for coming, going in ORDERS])
def test_every_order(shared, coming, going):
    world.run("xdp-filter", "load", "eth0", "-m", "native")
    world.run("tc", "qdisc", "add", "dev", "eth0", "clsact")    # the kernel stops a device for a moment when it gets or loses that
    there = {"xdpfilt_alw_all"}

    def in_order():
        assert names() == sorted(there, key=PRIORITIES.get)

    with passing_by(shared):
        for name in coming:
            come(name)
            there.add(name)
            in_order()
        # What is not ours goes through all of them.
        before = seen("early"), seen("late")
        shared.client.run("ping", "-q", "-c", "3", "-i", "0.1", "192.0.2.1")
        assert seen("early") >= before[0] + 3 and seen("late") >= before[1] + 3
        for name in going:
            go(name)
            there.remove(name)
            in_order()


@pytest.mark.every_run
def test_our_packets_while_others_come_and_go(shared):
    """Nothing to a VIP is lost while a chain is built around us, and what we forward is not seen by who comes after us."""
    shared.attach("eth0", "eth1")
    shared.serve([shared.place], 4, "udp")
    (ours,) = [entry for entry in chain() if entry[1] == "xlb"]
    with to_the_vip(shared):
        for name in ("late", "early"):
            come(name)
        assert names() == ["early", "xlb", "late"]
        before, passed = seen("late"), seen("early")
        world.wait_for(lambda: seen("early") > passed + 50, what="requests")
        assert seen("late") < before + 10       # but ARP
        for name in ("early", "late"):
            go(name)
    assert chain() == [ours]


def test_tools_with_a_dispatcher_of_their_own(shared):
    """Debian 12's xdp-filter comes beside us, or, where its dispatcher cannot take us, not at all; we stay and work either way."""
    shared.attach("eth0", "eth1")
    shared.serve([shared.place], 4, "udp")
    before = chain()
    loaded = world.run("xdp-filter", "load", "eth0", "-m", "native", check=False)
    if loaded.returncode:
        assert chain() == before
    else:
        assert [entry for entry in chain() if entry[1] == "xlb"] == before and names() == ["xdpfilt_alw_all", "xlb"]
    assert all(answer.get("name") == "b1" for answer in shared.ask("udp", 4, 3))
    if not loaded.returncode:
        world.run("xdp-filter", "unload", "eth0")
    assert chain() == before


def test_someone_else_first(shared):
    """A filter with a dispatcher of libxdp's own is there first: we come behind it, and it filters what is for us."""
    world.run("xdp-filter", "load", "eth0", "-m", "native")
    (filter_before,) = chain()
    shared.attach("eth0", "eth1")
    shared.serve([shared.place], 4, "udp")
    assert chain()[0] == filter_before and names() == ["xdpfilt_alw_all", "xlb"]
    assert all(answer.get("name") == "b1" for answer in shared.ask("udp", 4, 3))
    world.run("xdp-filter", "ip", "-m", "dst", VIPS[4])
    assert all("error" in answer for answer in shared.ask("udp", 4, 1))
    world.run("xdp-filter", "ip", "-m", "dst", "-r", VIPS[4])
    assert all(answer.get("name") == "b1" for answer in shared.ask("udp", 4, 3))
    world.lbctl("detach", "--all")
    assert chain() == [filter_before]


def test_priority(shared):
    """Before and after the others, as --priority says."""
    come("early")
    world.lbctl("attach", "eth0", "--priority", "10")
    assert names() == ["xlb", "early"]
    go("xlb")
    world.lbctl("attach", "eth0", "--priority", "90")
    assert names() == ["early", "xlb"]


def test_generic_mode_has_a_dispatcher_too(shared):
    """We come between others there, too; what is not ours goes through all of them, what is ours is served."""
    for device in ("eth0", "eth1"):
        world.run("ethtool", "-K", device, "gro", "off")        # what GRO merged is too long to go out again
    for name in ("late", "early"):
        libxdp.load("eth0", CHAIN_OBJECT, name, libxdp.GENERIC)
    before = others()
    shared.attach("eth0", "eth1", "--mode", "generic")
    assert NODE.run("xdp-loader", "status", "eth0").stdout.count(" skb ") == 1 and names() == ["early", "xlb", "late"]
    assert others() == before
    counted = seen("late")
    shared.client.run("ping", "-q", "-c", "3", "-i", "0.1", "192.0.2.1")
    assert seen("late") >= counted + 3
    shared.serve([shared.place], 4, "udp")
    counted = seen("early")
    with to_the_vip(shared):
        world.wait_for(lambda: seen("early") > counted + 50, what="requests")
    world.lbctl("detach", "--all")
    assert chain() == before


def test_mode_of_who_was_first(shared):
    """A dispatcher that is there keeps its mode: auto joins it and says so, and native is refused with what would do."""
    world.run("xdp-filter", "load", "eth0", "-m", "skb")
    before = chain()
    assert "eth0: libxdp's dispatcher is there in generic mode, and xlb in it" in world.lbctl("attach", "eth0").stderr
    assert names() == ["xdpfilt_alw_all", "xlb"] and world.lbctl_json("status")["devices"][0]["mode"] == "generic"
    world.lbctl("detach", "--all")
    refused = world.lbctl("attach", "eth0", "--mode", "native", check=False)
    assert refused.returncode == 1 and "attached in generic mode, and so xlb can be: --mode generic, or auto" in refused.stderr
    assert chain() == before


def test_a_full_dispatcher(shared):
    """Ten programs are the most: an eleventh is told so, and an upgrade, which takes one place more, before it changes anything."""
    def pinned():
        return json.loads(world.run("bpftool", "-j", "prog", "show", "pinned", f"{world.PIN_DIR}/xdp").stdout)["tag"]
    for _ in range(9):
        come("early")
    world.lbctl("attach", "eth0")
    before, tag = chain(), pinned()
    assert len(before) == 10
    refused = world.run(OTHER, "attach", "eth0", check=False)
    assert refused.returncode == 1 and "eth0: libxdp's dispatcher is full" in refused.stderr
    assert chain() == before and pinned() == tag
    go("early")
    world.run(OTHER, "attach", "eth0")
    assert pinned() != tag and [entry[3] for entry in chain() if entry[1] == "xlb"] == [pinned()]
    world.lbctl("detach", "--all")
    come("early")
    come("early")
    refused = world.lbctl("attach", "eth0", check=False)
    assert refused.returncode == 1 and "eth0: libxdp's dispatcher is full: 10 programs" in refused.stderr


def test_pins_that_are_gone(shared):
    """The program stays in the dispatcher; named, it goes out of it, and nobody else does."""
    come("early")
    world.lbctl("attach", "eth0")
    before = others()
    world.run("rm", "-r", world.PIN_DIR)
    assert "eth0: an xlb is attached" in world.lbctl("status").stdout
    assert world.lbctl("detach", "--all", check=False).returncode == 1 and "xlb" in names()
    assert "eth0: an xlb without pins was taken away" in world.lbctl("detach", "eth0").stderr
    assert chain() == before
    assert "clsact" not in world.run("tc", "qdisc", "show", "dev", "eth0").stdout


def test_status_shows_the_chain(shared):
    """As xdp-loader does, in text and JSON; `ours` is where xlb is."""
    world.run("xdp-filter", "load", "eth0", "-m", "native")
    for name in ("late", "xlb", "early"):
        come(name)
    (device,) = world.lbctl_json("status")["devices"]
    shown = [(member["priority"], member["name"], member["id"], member["tag"]) for member in device["chain"]]
    assert shown == chain() and [entry[1] for entry in shown] == ["xdpfilt_alw_all", "early", "xlb", "late"]
    assert [member["ours"] for member in device["chain"]] == [False, False, True, False]
    lines = [line.split() for line in world.lbctl("status").stdout.splitlines() if line.startswith("eth0 ")][1:]
    assert lines == [["eth0", str(order), str(priority), str(number), tag, name]
                     for order, (priority, name, number, tag) in enumerate(shown, 1)]


@pytest.mark.every_run
def test_upgrade_in_the_middle(shared):
    """Another build's program takes our place between the others, at our priority, and no packet is lost over it: of ours, and of
    those that are not."""
    world.lbctl("attach", "eth0", "--priority", "60")
    shared.attach("eth1")
    shared.serve([shared.place], 4, "udp")
    for name in ("late", "early"):
        come(name)
    before = chain()
    with to_the_vip(shared), passing_by(shared):
        for build in (OTHER, world.LBCTL):
            assert "another build" in attach_by(build).stderr
            after = chain()
            assert names() == ["early", "xlb", "late"] and after[1][0] == 60
            assert (after[0], after[2]) == (before[0], before[2])
            assert (after[1][3] == before[1][3]) == (build != OTHER)


def strangers():
    """Other XDP programs on both devices, and other filters of tc."""
    return others("eth0"), others("eth1"), [
        line for line in world.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout.splitlines() if "untag" in line]


@pytest.fixture
def beside(shared):
    """A world with them: native on eth0, generic on eth1. What they were before."""
    world.run("xdp-filter", "load", "eth0", "-m", "native")
    for name in ("early", "late"):
        come(name)
        libxdp.load("eth1", CHAIN_OBJECT, name, libxdp.GENERIC)
    world.sh(f"tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress prio 9 bpf direct-action object-file {TAG_OBJECT} "
             "section untag1")
    before = strangers()
    assert list(map(len, before)) == [3, 2, 1]
    yield before
    assert strangers() == before
    assert [names(device) for device in ("eth0", "eth1")] == [["xdpfilt_alw_all", "early", "late"], ["early", "late"]]


@pytest.mark.every_run
def test_nobody_else_is_touched(beside):
    """Id, tag and position of other XDP programs, and other filters of tc, before and after everything that lbctl does."""
    vip, backend = "192.0.2.200:8080/tcp", "10.0.1.2:8080"
    for words in (("attach", "eth0"), ("attach", "eth0"), ("attach", "eth1", "--mode", "generic"), ("status",), ("services", "add", vip),
                  ("backends", "add", vip, backend), ("backends", "drain", vip, backend), ("services", "set", vip, "--forward", "ipip"),
                  ("trace", "192.0.2.9:1", vip), ("backends", "del", vip, backend), ("services", "del", vip), ("detach", "eth1"),
                  ("detach", "eth0", "--keep"), ("detach", "--all"), ("attach", "eth0", "--mode", "native", "--priority", "15")):
        world.lbctl(*words)
        assert strangers() == beside, words
    for build in (OTHER, world.LBCTL):
        attach_by(build)
        assert strangers() == beside
    world.lbctl("detach", "--all")


def test_nobody_else_is_touched_by_an_attach_that_fails(beside):
    """Before and after something is attached; the second device fails after the first was done."""
    wrong = (("eth0", "--mode", "generic"), ("eth0", "nowhere"), ("eth1", "--mode", "native"), ("eth0", "lo"))
    for words in wrong:
        assert world.lbctl("attach", *words, check=False).returncode, words
        assert strangers() == beside, words
        world.lbctl("detach", "--all", check=False)
        assert strangers() == beside, words


def test_nobody_else_is_touched_by_a_sync(beside, tmp_path):
    """From a file, and by a watch, confined as it is, that puts filters of tc on devices and takes them away."""
    world.lbctl("attach", "eth0")
    world.lbctl("attach", "eth1", "--mode", "generic")
    service = {"metadata": {"name": "hello"}, "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]},
               "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.200"}]}}}
    part = {"metadata": {"name": "hello-1", "labels": {"kubernetes.io/service-name": "hello"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["10.0.1.2"]}]}
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"kind": "List", "items": [service | {"kind": "Service"}, part | {"kind": "EndpointSlice"}]}))
    world.lbctl("backends", "sync", "--from", path)
    assert backends() == ["10.0.1.2:8080"] and strangers() == beside
    world.lbctl("services", "del", "192.0.2.200:80/tcp", "--force")
    server = ApiServer()
    server.put("services", service)
    server.put("endpointslices", part)
    watch = NODE.start(world.LBCTL, "backends", "sync", "--watch", "--kubeconfig", server.kubeconfig(tmp_path / "kubeconfig"))
    try:
        for address in ("10.0.1.2", "10.0.1.3"):
            server.put("endpointslices", part | {"endpoints": [{"addresses": [address]}]})
            world.wait_for(lambda: backends() == [f"{address}:8080"], 20, what="the watch")     # pylint: disable=cell-var-from-loop
            assert strangers() == beside
    finally:
        watch.terminate()
        watch.wait(20)
        server.stop()
    assert strangers() == beside
    world.lbctl("detach", "--all")


def backends():
    return [backend["address"] for backend in world.lbctl_json("backends", "list") if backend["state"] == "active"]


def test_xdpdump_beside_us(shared):
    """What xdpdump sees of our program while it runs; while it listens, others come and go, and we, and an upgrade of ours. It may lose
    sight of who was replaced; what is there stays, and works."""
    shared.attach("eth0", "eth1")
    shared.serve([shared.place], 4, "udp")
    come("late")
    before = chain()
    dump = NODE.start("timeout", "-s", "INT", "60", "xdpdump", "-i", "eth0", "-p", "xlb", "--rx-capture=exit",
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    world.wait_for(lambda: "listening on" in dump.stdout.readline(), what="xdpdump")
    assert all(answer.get("name") == "b1" for answer in shared.ask("udp", 4, 5))
    assert chain() == before
    with to_the_vip(shared):
        come("early")
        for build in (OTHER, world.LBCTL):
            attach_by(build)
            assert [names()[0], *others()[1:]] == ["early", *before[1:]]
        go("early")
    go("xlb")
    come("xlb")
    assert others() == before[1:] and names() == ["xlb", "late"]
    dump.send_signal(2)
    seen_by_it = dump.communicate()[0]
    assert "xlb()@exit" in seen_by_it and "REDIRECT" in seen_by_it, seen_by_it
    assert others() == before[1:] and names() == ["xlb", "late"]
    assert all(answer.get("name") == "b1" for answer in shared.ask("udp", 4, 3))


def pinned():
    return {path.name for path in pathlib.Path("/sys/fs/bpf/xdp").glob("dispatch-*")}


def test_nothing_is_left_of_a_device_that_is_gone(shared):
    """libxdp pins what is on a device; who takes the device away does not unpin it, and our maps would stay for ever."""
    others_leave = pinned()      # of other tests: their programs are not ours to unpin
    shared.attach("eth0", "eth1")
    before = pinned() - others_leave
    assert len(before) == 2
    index = json.loads(world.run("ip", "-j", "link", "show", "eth1").stdout)[0]["ifindex"]
    world.run("ip", "link", "del", "eth1")
    world.lbctl("services", "add", "192.0.2.200:80/tcp")
    world.lbctl("attach", "eth0")
    assert pinned() - others_leave == {name for name in before if not name.startswith(f"dispatch-{index}-")}
    world.lbctl("detach", "--all")
    assert not pinned() - others_leave
