# SPDX-License-Identifier: GPL-2.0
"""Who is served: packets that no client sends, frames that are for nobody here, and packets that are not yet where they are going."""

import pytest
from scapy.layers.inet import (ICMP, TCP, UDP, IPOption, IPOption_EOL, IPOption_LSRR, IPOption_NOP, IPOption_RR,
                               IPOption_Router_Alert, IPOption_SSRR)
from scapy.layers.inet6 import (ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting)
from scapy.layers.l2 import Ether

import stand
from frames import (CLIENT, CLIENT6, LINKS, PORTS, VIP, VIP6, backend_mac, backend_text, frame,
                    network, port_of, transport, vip_text)
from world import run

FROM_CLIENT = {"src": stand.CLIENT_MAC, "dst": stand.NODE_MAC}
OTHER, OTHER6 = "203.0.113.20", "2001:db8:99::20"
KINDS = [(forward, family) for forward in ("nat", "dnat", "l2", "ipip", "gue") for family in (4, 6)]


def bad_source(packet):
    before = stand.drops()["XLB_DROP_BAD_SOURCE"]
    assert stand.send(packet)[0] == "drop"
    return stand.drops()["XLB_DROP_BAD_SOURCE"] == before + 1


def other_text(family, port, name):
    return f"{network(family, OTHER, '[' + OTHER6 + ']')}:{port}/{name}"


class Two:
    """Two services; what comes from the one to the other, and the answer."""

    def __init__(self, service, forward, family, name="udp", ports=(53, 53), schedulers=("maglev", "maglev")):
        self.vip, self.other = network(family, VIP, VIP6), network(family, OTHER, OTHER6)
        self.ports, self.name = ports, name
        for text, port, number, scheduler in ((vip_text(family, ports[0], name), ports[0], 0, schedulers[0]),
                                              (other_text(family, ports[1], name), ports[1], 1, schedulers[1])):
            service(text, [backend_text(family, port, number)], forward=forward, scheduler=scheduler)

    def there(self, flags="S"):
        return frame(self.other, self.vip, transport(self.name, sport=self.ports[1], dport=self.ports[0], flags=flags))

    def back(self, flags="S"):
        return frame(self.vip, self.other, transport(self.name, sport=self.ports[0], dport=self.ports[1], flags=flags))


@pytest.mark.parametrize("forward,family", KINDS)
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_from_one_service_to_another(service, forward, family, name):
    """One forged packet, and two that answer whatever they get would do so for ever."""
    two = Two(service, forward, family, name)
    assert bad_source(two.there()) and bad_source(two.back())


@pytest.mark.parametrize("forward,family", KINDS)
@pytest.mark.parametrize("scheduler", ("maglev", "rr"))
def test_no_two_services_go_on_for_ever(service, forward, family, scheduler):
    """Whatever their ports are: of what one sends and what the other answers, one is not let in."""
    two = Two(service, forward, family, ports=(53, 5300), schedulers=(scheduler, scheduler))
    if forward == "dnat":   # the backend answers with its own address, which is nobody's service
        assert bad_source(two.there())
    else:
        assert stand.send(two.there())[0] == "tx"
    assert bad_source(two.back())


@pytest.mark.parametrize("forward,family", [kind for kind in KINDS if kind[0] not in ("nat", "dnat")])
def test_the_middle_of_a_connection_is_not_looked_at(service, forward, family):
    """Where no flow is kept, nothing that has an ACK begins one: it is at most refused by the backend."""
    two = Two(service, forward, family, "tcp")
    assert stand.send(two.there("A"))[0] == "tx"


@pytest.mark.parametrize("forward,family", KINDS)
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_clients_that_are_no_services(service, forward, family, name):
    """The address of one with another port (the node ports of a node are VIPs); another protocol; a backend of one."""
    two = Two(service, forward, family, name)
    backend = network(family, list(stand.BACKENDS)[1], list(stand.BACKENDS6)[1])
    for source, port in ((two.other, 52), (backend, 53)):
        assert stand.send(frame(source, two.vip, transport(name, sport=port, dport=53, flags="S")))[0] == "tx"
    service(vip_text(family, 54, {"tcp": "udp", "udp": "tcp"}[name]))
    service(other_text(family, 54, {"tcp": "udp", "udp": "tcp"}[name]))
    assert stand.send(frame(two.other, two.vip, transport(name, sport=54, dport=53, flags="S")))[0] != "drop"


GROUPS = {"broadcast": "ff:ff:ff:ff:ff:ff", "a group of IPv4": "01:00:5e:01:02:03", "any group": "03:00:00:00:00:01"}


@pytest.mark.parametrize("group,link", [("broadcast", "untagged"), ("broadcast", "qinq"), ("a group of IPv4", "vlan"),
                                        ("any group", "untagged")])
@pytest.mark.parametrize("family", (4, 6))
def test_to_a_group_on_the_link(service, group, link, family):
    """Neither forwarded nor answered (RFC 1122, 3.2.2 and 3.3.6): passed as it came, and nothing is counted."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    macs = (stand.CLIENT_MAC, GROUPS[group])
    key = service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)])
    service(vip_text(family, 80, "udp"))
    before = stand.drops()
    for layer in (TCP(sport=1, dport=80, flags="S"), TCP(sport=1, dport=80, flags="A"), UDP(sport=1, dport=80),
                  ICMP() if family == 4 else ICMPv6EchoRequest()):
        sent = frame(client, vip, layer, LINKS[link], macs=macs)
        assert stand.send(sent) == ("pass", sent)
    assert stand.drops() == before
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == key]
    assert entry["packets"] == 0


def routed(segments_left):
    return IPv6ExtHdrRouting(type=4, segleft=segments_left, addresses=["2001:db8:77::7"])


@pytest.mark.parametrize("forward", ("nat", "nat64", "ipip"))
@pytest.mark.parametrize("extra", ([], [IPv6ExtHdrDestOpt()]), ids=("alone", "behind options"))
def test_ipv6_routing_header(service, forward, extra):
    """The VIP is but one hop of the way (RFC 8200, 4.4): not ours; where it is the last one, it is. Between families, too (RFC 7915,
    5.1)."""
    service(vip_text(6, 80, "tcp"), [backend_text(4 if forward == "nat64" else 6, 80)], forward=forward.removesuffix("64"))
    for segments, verdict in ((1, "pass"), (255, "pass"), (0, "tx")):
        sent = frame(CLIENT6, VIP6, TCP(sport=next(PORTS), dport=80, flags="S"), extra=[*extra, routed(segments)])
        assert stand.send(sent)[0] == verdict
        if verdict == "pass":
            assert stand.send(sent) == ("pass", sent)


def test_ipv6_routing_header_of_a_ping(service):
    service(vip_text(6, 80, "tcp"))
    for segments, verdict in ((1, "pass"), (0, "tx")):
        assert stand.send(frame(CLIENT6, VIP6, ICMPv6EchoRequest(), extra=[routed(segments)]))[0] == verdict


HOPS = ["192.0.2.7", "192.0.2.8"]
OPTIONS = {
    "loose, both left": ([IPOption_LSRR(routers=HOPS)], "pass"),
    "loose, one left": ([IPOption_LSRR(routers=HOPS, pointer=8)], "pass"),
    "loose, none left": ([IPOption_LSRR(routers=HOPS, pointer=12)], "tx"),
    "strict, one left": ([IPOption_NOP(), IPOption_SSRR(routers=HOPS[:1])], "pass"),
    "strict, none left": ([IPOption_SSRR(routers=HOPS[:1], pointer=8)], "tx"),
    "behind others": ([IPOption_Router_Alert(), IPOption_NOP(), IPOption_LSRR(routers=HOPS)], "pass"),
    "behind the end": ([IPOption_EOL(), IPOption_LSRR(routers=HOPS)], "tx"),
    "a record of the route": ([IPOption_RR(routers=HOPS)], "tx"),
    "eight of one byte": ([IPOption_NOP()] * 8, "tx"),
    "more than are looked through": ([IPOption_NOP()] * 12, "pass"),
    "longer than the header": ([IPOption(b"\x44\x09\x05\x00")], "pass"),
    "of no length": ([IPOption(b"\x44\x00\x05\x00")], "pass"),
}


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("name,forward", [("tcp", "nat"), ("udp", "ipip"), ("ping", "nat")])
def test_ipv4_options(service, what, name, forward):
    """On a source route that goes on from here (RFC 791, 3.1), or with what cannot be read: the kernel's."""
    extra, verdict = OPTIONS[what]
    service(vip_text(4, 80, "udp" if name == "udp" else "tcp"), [backend_text(4, 80)], forward=forward)
    layer = ICMP() if name == "ping" else transport(name, sport=next(PORTS), dport=80, flags="S")
    sent = frame(CLIENT, VIP, layer, extra=extra)
    got, out = stand.send(sent)
    assert got == verdict and (verdict == "tx" or out == sent)


def several_buffers():
    """Whether the program takes frames that are longer than a page."""
    try:
        return stand.send(frame(CLIENT, "203.0.113.99", UDP(sport=1, dport=1), payload=b"x" * 8000))[0] == "pass"
    except OSError:
        return False


@pytest.fixture(name="jumbo")
def jumbo_frames():
    if stand.ON_THE_WIRE:
        pytest.skip("the wire's MTU is 1500")
    if not several_buffers():
        pytest.skip("this kernel runs no programs on frames in several buffers by BPF_PROG_TEST_RUN")


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("length", (2500, 8000))
def test_echo_in_several_buffers(service, jumbo, family, link, length):
    """A large ping is answered like a small one."""
    service(vip_text(family, 80, "tcp"))
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    ping, pong = ((ICMP(id=7, seq=3), ICMP(type=0, id=7, seq=3)) if family == 4 else
                  (ICMPv6EchoRequest(id=7, seq=3), ICMPv6EchoReply(id=7, seq=3)))
    sent = frame(client, vip, ping, LINKS[link], payload=b"x" * length)
    assert stand.send(sent) == ("tx", frame(vip, client, pong, LINKS[link], payload=b"x" * length,
                                            macs=(stand.NODE_MAC, stand.CLIENT_MAC)))


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_service_in_several_buffers(service, jumbo, family, name):
    """What is longer than the device takes is answered; what only says so is dropped."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 80, name), [backend_text(family, 8080)])
    sent = frame(client, vip, transport(name, sport=next(PORTS), dport=80, flags="S"), payload=b"x" * 8000, flags="DF")
    verdict, out = stand.send(sent)
    out = Ether(out)
    assert verdict == "tx" and out.dst == stand.CLIENT_MAC
    assert (out[ICMP].nexthopmtu if family == 4 else out[IPv6].payload.mtu) == 1500
    before = stand.drops()["XLB_DROP_MALFORMED"]
    assert stand.send(sent[:7000])[0] == "drop"
    assert stand.drops()["XLB_DROP_MALFORMED"] == before + 1


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_translated_in_several_buffers(service, jumbo, family, name):
    """By a device that takes it: as a short one, and so is the answer."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    node = network(family, stand.NODE, stand.NODE6)
    backend = network(family, list(stand.BACKENDS)[4], list(stand.BACKENDS6)[4])
    run("ip", "link", "set", "v0", "mtu", "9000")
    try:
        service(vip_text(family, 81, name), [backend_text(family, 8081, 4)])
        sport = next(PORTS)
        sent = frame(client, vip, transport(name, sport=sport, dport=81, flags="S"), payload=b"x" * 8000)
        verdict, out = stand.send(sent)
        assert verdict == "tx"
        port = port_of(out, name)
        assert out == frame(node, backend, transport(name, sport=port, dport=8081, flags="S"), payload=b"x" * 8000, ttl=63,
                            macs=(stand.NODE_MAC, backend_mac(backend)))
    finally:
        run("ip", "link", "set", "v0", "mtu", "1500")
