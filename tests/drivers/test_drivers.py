# SPDX-License-Identifier: GPL-2.0
"""NICs with a driver of their own: virtio_net, native, alone, in a bond and under VLANs. tests/vm/run -n has them, on two links:
0, 1 and 4 on the first, 2, 3 and 5 on the second. All but 5 have twice as many queues as the machine has CPUs, one for each CPU's XDP."""

import json
import pathlib

import features
import pytest
import traffic
import world
from world import Host, NODE

pytestmark = pytest.mark.whole

VIP = "203.0.113.10:80"
HERE = [f"52:54:00:00:00:0{number}" for number in range(6)]


def links(host=NODE):
    return json.loads(host.run("ip", "-j", "-d", "link").stdout)


def nic(number):
    """Its name, once it is (back) with the node: from a namespace that ends it comes a little later."""
    def find():
        return [each["ifname"] for each in links() if each.get("permaddr", each.get("address")) == HERE[number]]
    return world.wait_for(find, what=f"NIC {number}")[0]


def give(number, host, *addresses):
    """The NIC to a host, as its eth0."""
    name = nic(number)
    world.run("ip", "link", "set", name, "netns", host.name)
    host.run("ip", "link", "set", name, "name", "eth0", "up")
    host.address("eth0", *addresses)


class Machines:
    """The node with NIC 0 as eth0 and NIC 2 as eth1; a client and `near` on the one's link, `far` on the other's."""

    def __init__(self):
        self.hosts = {}
        for number in range(6):
            name = nic(number)
            world.run("ip", "link", "set", name, "nomaster", "down")
            world.run("ip", "address", "flush", "dev", name)
            world.run("ip", "link", "set", name, "name", f"nic{number}")
        world.forwarding(True)
        for name, number, address in (("client", 1, "192.0.2.100/24"), ("near", 4, "192.0.2.9/24"), ("far", 3, "10.0.1.2/24")):
            self.hosts[name] = Host(name)
            give(number, self.hosts[name], address)
        self.hosts["client"].route("203.0.113.0/24", "via", "192.0.2.1")
        self.hosts["far"].route("default", "via", "10.0.1.1")
        self.near, self.far, self.client = self.hosts["near"], self.hosts["far"], self.hosts["client"]
        for host in (self.near, self.far):
            assert host.fork(traffic.serve, host.name, 8080).stdout.readline() == "ready\n"

    @staticmethod
    def ports(first="nic0", second="nic2"):
        for device, address in ((first, "192.0.2.1/24"), (second, "10.0.1.1/24")):
            world.run("ip", "link", "set", device, "up")
            NODE.address(device, address)

    def take_back_4(self):
        """The NIC of `near`, down, for the node: another one on the link of its first."""
        self.near.run("ip", "link", "set", "eth0", "netns", "1")
        name = nic(4)
        world.run("ip", "link", "set", name, "down")
        return name

    def serve(self, address):
        for protocol in ("tcp", "udp"):
            world.lbctl("services", "add", f"{VIP}/{protocol}")
            world.lbctl("backends", "add", f"{VIP}/{protocol}", f"{address}:8080")

    def ask(self, protocol, count=3):
        words = [100000] if protocol == "tcp" else []
        asking = self.client.fork(traffic.main, protocol, VIP.partition(":")[0], 80, count, *words, timeout=90)
        return [json.loads(line) for line in asking.output().splitlines()]

    def works(self, name):
        for protocol in ("udp", "tcp"):
            answers = self.ask(protocol)
            assert [answer.get("name") for answer in answers] == [name] * 3, answers
            assert protocol == "udp" or all(answer["intact"] for answer in answers)


@pytest.fixture
def machines():
    world.run("modprobe", "-q", "virtio_net", check=False)      # nobody else loads it
    if not any(each.get("address") == HERE[0] or each.get("permaddr") == HERE[0] for each in links()):
        pytest.skip("needs the NICs of a virtual machine (tests/vm/run -n)")
    made = Machines()
    yield made
    world.WAITING.clear()
    world.lbctl("detach", "--all", check=False)
    for host in made.hosts.values():
        for pid in world.run("ip", "netns", "pids", host.name).stdout.split():
            world.run("kill", "-9", pid, check=False)
        host.remove()
    for each in links():
        if each.get("linkinfo", {}).get("info_kind") in ("bond", "vlan"):
            world.run("ip", "link", "del", each["ifname"], check=False)


def modes():
    return {each["device"]: each["mode"] for each in world.lbctl_json("status")["devices"] if each["mode"] != "replies"}


@pytest.mark.every_row
@pytest.mark.parametrize("where", ("redirect", "tx"))
def test_native(machines, where):
    """virtio_net in native mode: out of the other NIC, or of the same one."""
    machines.ports()
    assert world.lbctl("attach", "nic0", "nic2", "--mode", "native").returncode == 0
    assert modes() == {"nic0": "native", "nic2": "native"}
    machines.serve("10.0.1.2" if where == "redirect" else "192.0.2.9")
    machines.works("far" if where == "redirect" else "near")


def test_generic_is_the_same(machines):
    machines.ports()
    world.lbctl("attach", "nic0", "nic2", "--mode", "generic")
    assert modes() == {"nic0": "generic", "nic2": "generic"}
    machines.serve("10.0.1.2")
    machines.works("far")


@pytest.mark.every_run
@pytest.mark.kernels(before=(6, 1))
def test_too_few_queues(machines):
    """Without a queue for each CPU's XDP: older drivers refuse native mode, and attach says that it is generic, and why."""
    machines.ports("nic0", "nic5")
    said = world.lbctl("attach", "nic0", "nic5").stderr
    if modes()["nic5"] == "generic":
        assert "nic5: its driver does not take XDP" in said and "generic mode" in said and "ethtool -L" in said
    else:
        assert "generic" not in said
    machines.serve("10.0.1.2")
    machines.works("far")


def xdp_on(name):
    """How a program is on a device, as `ip link` says: 1 native, 2 generic."""
    (link,) = [each for each in links() if each["ifname"] == name]
    return link.get("xdp", {}).get("mode", 0)


def test_bond(machines):
    """Attached to the bond, native where bonds can (5.15), before and after another NIC joins it."""
    world.run("ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100")
    world.run("ip", "link", "set", "nic0", "master", "bond0")
    machines.ports("bond0", "nic2")
    world.lbctl("attach", "bond0", "nic2")
    native = features.release() >= (5, 15)
    assert modes()["bond0"] == ("native" if native else "generic")
    machines.serve("10.0.1.2")
    machines.works("far")
    # Another port of the same link joins, and takes over.
    name = machines.take_back_4()
    world.run("ip", "link", "set", name, "master", "bond0")
    assert modes()["bond0"] == ("native" if native else "generic")
    if native:
        assert xdp_on(name) or xdp_on("bond0")
    world.run("ip", "link", "set", "nic0", "nomaster")
    world.wait_for(lambda: machines.ask("udp", 1)[0].get("name") == "far", 30, "the other NIC of the bond")
    machines.works("far")


def test_a_nic_with_xlb_of_its_own_and_a_bond(machines):
    """Where xlb is native on the bond, the kernel lets no NIC join that has a program itself: it has to be detached first, and all
    stays as it was. Else the NIC joins, and what comes by it is served there."""
    world.run("ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100")
    world.run("ip", "link", "set", "nic0", "master", "bond0")
    machines.ports("bond0", "nic2")
    name = machines.take_back_4()
    world.lbctl("attach", "bond0", "nic2", name)
    machines.serve("10.0.1.2")
    native = modes()["bond0"] == "native"
    assert native == (features.release() >= (5, 15)) and modes()[name] == "native"
    joined = world.run("ip", "link", "set", name, "master", "bond0", check=False)
    assert bool(joined.returncode) == native, joined.stderr
    assert modes()["bond0"] == ("native" if native else "generic") and modes()[name] == "native"
    machines.works("far")
    if native:
        world.lbctl("detach", name)
        world.run("ip", "link", "set", name, "down")
        world.run("ip", "link", "set", name, "master", "bond0")
    world.run("ip", "link", "set", "nic0", "nomaster")
    world.wait_for(lambda: machines.ask("udp", 1)[0].get("name") == "far", 30, "the other NIC of the bond")
    machines.works("far")


def test_slave_of_a_bond(machines):
    """Packets are the bond's: one line says so, and nothing is attached."""
    world.run("ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup")
    world.run("ip", "link", "set", "nic0", "master", "bond0")
    result = world.lbctl("attach", "nic0", check=False)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "bond0" in result.stderr and "attach to bond0" in result.stderr
    assert not xdp_on("nic0")


def test_vlan(machines):
    """On a VLAN sub-interface attach says why not, and to what instead; there, tagged packets are served."""
    world.run("ip", "link", "set", "nic0", "up")
    world.run("ip", "link", "add", "nic0.5", "link", "nic0", "type", "vlan", "id", "5")
    machines.ports("nic0.5", "nic2")
    client = machines.client
    client.sh("ip address flush dev eth0; ip link add eth0.5 link eth0 type vlan id 5; ip link set eth0.5 up; "
              "ip address add 192.0.2.100/24 dev eth0.5; ip route add 203.0.113.0/24 via 192.0.2.1")
    result = world.lbctl("attach", "nic0.5", check=False)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "nic0.5: a VLAN of nic0" in result.stderr and "attach to nic0" in result.stderr
    assert not pathlib.Path(world.PIN_DIR).exists()
    world.lbctl("attach", "nic0", "nic2", "--mode", "native")
    machines.serve("10.0.1.2")
    machines.works("far")


def test_vlan_in_generic_mode(machines):
    """Who asks for generic mode may have it on the sub-interface, too."""
    world.run("ip", "link", "set", "nic0", "up")
    world.run("ip", "link", "add", "nic0.5", "link", "nic0", "type", "vlan", "id", "5")
    machines.ports("nic0.5", "nic2")
    machines.client.sh("ip address flush dev eth0; ip link add eth0.5 link eth0 type vlan id 5; ip link set eth0.5 up; "
                       "ip address add 192.0.2.100/24 dev eth0.5; ip route add 203.0.113.0/24 via 192.0.2.1")
    world.lbctl("attach", "nic0.5", "nic2", "--mode", "generic")
    assert modes() == {"nic0.5": "generic", "nic2": "generic"}
    machines.serve("10.0.1.2")
    machines.works("far")


def test_locked_down(machines):
    """The last one, for there is no way back: a kernel that lets nobody read its memory, not by BPF either, takes xlb and forwards."""
    lockdown = pathlib.Path("/sys/kernel/security/lockdown")
    if not lockdown.exists():
        world.run("mount", "-t", "securityfs", "none", lockdown.parent)
    lockdown.write_text("confidentiality", encoding="ascii")
    assert "[confidentiality]" in lockdown.read_text(encoding="ascii")
    machines.ports()
    world.lbctl("attach", "nic0", "nic2")
    machines.serve("10.0.1.2")
    machines.works("far")
    if features.no_reading_without_capabilities():
        # What is refused to others names a reason there, too.
        world.run("chmod", "o+x", "/sys/fs/bpf")
        world.lbctl("attach", "nic0", "--pin-group", "65534")
        said = world.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", world.LBCTL, "services", "list",
                         check=False).stderr
        assert said.count("\n") == 1 and "Operation not permitted (" in said
        assert "CAP_BPF is missing" in said
    if not features.no_iterators():
        assert "10.0.1.2" in pathlib.Path("/sys/fs/bpf/xlb/counters").read_text(encoding="ascii")
