# SPDX-License-Identifier: GPL-2.0
"""Fragments, ICMP, hop limits, and packets that lie: the kinds that are easily forgotten."""

import itertools
import os
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig,
                                ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import (BACKEND, BACKEND6, CLIENT, CLIENT6, LINKS, PORTS, QUOTED, VIP, VIP6, backend_mac, backend_text, frame,
                    network, port_of, transport, vip_text)

FROM_CLIENT = {"src": stand.CLIENT_MAC, "dst": stand.NODE_MAC}
TO_CLIENT = {"src": stand.NODE_MAC, "dst": stand.CLIENT_MAC}
ROUTER, ROUTER6 = "192.0.2.77", "2001:db8:1::77"
KINDS = list(itertools.product(("nat", "dnat"), ("tcp", "udp"), (4, 6)))


def sums_filled(packet):
    """The frame with every checksum as scapy computes it."""
    return bytes(Ether(bytes(packet)))


class Flow:
    """A flow through a service of one backend, which has been answered."""

    def __init__(self, service, forward, name, family):
        self.name, self.family = name, family
        self.sport = next(PORTS)
        self.client, self.vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
        self.backend = network(family, BACKEND, BACKEND6)
        self.key = service(vip_text(family, 80, name), [backend_text(family, 8080)], forward=forward)
        verdict, out = stand.send(frame(self.client, self.vip, self.there("S")))
        assert verdict == "tx"
        self.nat_port = port_of(out, name)
        self.source = network(family, stand.NODE, stand.NODE6) if forward == "nat" else self.client
        assert self.back_again("SA")[0] == "tx"

    def there(self, flags="A"):
        return transport(self.name, sport=self.sport, dport=80, flags=flags)

    def arrives(self, flags="A"):
        """What the backend gets."""
        return transport(self.name, sport=self.nat_port, dport=8080, flags=flags)

    def back(self, flags="A"):
        """What the backend answers."""
        return transport(self.name, sport=8080, dport=self.nat_port, flags=flags)

    def returns(self, flags="A"):
        """What the client gets."""
        return transport(self.name, sport=80, dport=self.sport, flags=flags)

    def back_again(self, flags="A"):
        return stand.send(frame(self.backend, self.source, self.back(flags),
                                macs=(backend_mac(self.backend), stand.NODE_MAC)))

    def ip(self, source, destination, **fields):
        if self.family == 4:
            return IP(src=source, dst=destination, **fields)
        fields = {{"ttl": "hlim"}.get(key, key): value for key, value in fields.items() if key != "id"}
        return IPv6(src=source, dst=destination, **fields)


def cut(packet, family, ident, size=800):
    """The fragments of a packet: (its first, its others), as IP without Ethernet."""
    whole = bytes(packet)
    headers = 20 if family == 4 else 40
    payload, parts = whole[headers:], []
    for offset in range(0, len(payload), size):
        part, more = payload[offset:offset + size], offset + size < len(payload)
        if family == 4:
            head = IP(whole[:20])
            parts.append(IP(src=head.src, dst=head.dst, ttl=head.ttl, id=ident, proto=head.proto,
                            flags="MF" if more else 0, frag=offset // 8) / Raw(part))
        else:
            head = IPv6(whole[:40])
            parts.append(IPv6(src=head.src, dst=head.dst, hlim=head.hlim) /
                         IPv6ExtHdrFragment(nh=head.nh, offset=offset // 8, m=more, id=ident) / Raw(part))
    return parts[0], parts[1:]


def fragments_go(flow, macs, sent, out_macs, expected):
    """Fragments of `sent` come out as the same fragments of `expected`."""
    ident = next(PORTS)
    first, others = cut(sent, flow.family, ident)
    first_out, others_out = cut(expected, flow.family, ident)
    for part, part_out in zip([first, *others], [first_out, *others_out]):
        verdict, out = stand.send(Ether(**macs) / part)
        assert verdict == "tx"
        assert out == bytes(Ether(**out_macs) / part_out)


@pytest.mark.parametrize("forward,name,family", KINDS)
def test_fragments_follow_their_first(service, forward, name, family):
    """Both ways: the first one is translated with its checksum, the others in their addresses, to the same backend."""
    flow = Flow(service, forward, name, family)
    payload = Raw(bytes(range(250)) * 9)
    to_backend = {"src": stand.NODE_MAC, "dst": backend_mac(flow.backend)}
    from_backend = {"src": backend_mac(flow.backend), "dst": stand.NODE_MAC}
    fragments_go(flow, FROM_CLIENT, flow.ip(flow.client, flow.vip) / flow.there() / payload,
                 to_backend, flow.ip(flow.source, flow.backend, ttl=63) / flow.arrives() / payload)
    fragments_go(flow, from_backend, flow.ip(flow.backend, flow.source) / flow.back() / payload,
                 TO_CLIENT, flow.ip(flow.vip, flow.client, ttl=63) / flow.returns() / payload)


@pytest.mark.parametrize("family", (4, 6))
def test_fragment_without_its_first(service, family):
    """To a VIP: tc keeps it (test_by_kernel.py). To anybody else: not ours. Neither is a drop."""
    service(vip_text(family, 80, "udp"), [backend_text(family, 8080)])
    client, vip, other = (network(family, CLIENT, CLIENT6), network(family, VIP, VIP6),
                          network(family, "203.0.113.99", "2001:db8:99::99"))
    before = stand.drops()["XLB_DROP_NO_FRAGMENT"]
    for destination in (vip, other):
        packet = (IP(src=client, dst=destination) if family == 4 else
                  IPv6(src=client, dst=destination)) / UDP(sport=1, dport=80) / Raw(b"x" * 2000)
        _, others = cut(packet, family, next(PORTS))
        assert stand.send(Ether(**FROM_CLIENT) / others[0])[0] == "pass"
    assert stand.drops()["XLB_DROP_NO_FRAGMENT"] == before


def test_fragments_of_other_protocols_pass(service):
    """A large ping's fragments are nothing for us, first or later."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 8080)])
    first, others = cut(IP(src=CLIENT, dst=VIP) / ICMP() / Raw(b"x" * 2000), 4, next(PORTS))
    for part in (first, *others):
        assert stand.send(Ether(**FROM_CLIENT) / part) == ("pass", bytes(Ether(**FROM_CLIENT) / part))


def test_ipv6_atomic_fragment_is_a_whole_packet(service):
    """RFC 6946."""
    flow = Flow(service, "nat", "udp", 6)
    verdict, out = stand.send(frame(CLIENT6, VIP6, flow.there(), extra=[IPv6ExtHdrFragment(id=9)]))
    assert verdict == "tx"
    assert out == frame(flow.source, BACKEND6, flow.arrives(), extra=[IPv6ExtHdrFragment(id=9)], ttl=63,
                        macs=(stand.NODE_MAC, backend_mac(BACKEND6)))


def error(family, code):
    if family == 4:
        return {"too big": ICMP(type=3, code=4, nexthopmtu=1280), "port": ICMP(type=3, code=3),
                "ttl": ICMP(type=11)}[code]
    return {"too big": ICMPv6PacketTooBig(mtu=1280), "port": ICMPv6DestUnreach(code=4),
            "ttl": ICMPv6TimeExceeded()}[code]


def quoted(flow, source, destination, inner, length):
    """An IP packet as an error quotes it: with its own right checksums, and cut after so many bytes of transport."""
    return bytes(flow.ip(source, destination, id=99) / inner / Raw(b"0123456789"))[:network(flow.family, 20, 40) + length]


ERRORS = [(*kind, code, length) for kind in KINDS for code in ("too big", "port", "ttl") for length in (8, 28)]


@pytest.mark.parametrize("forward,name,family,code,length", ERRORS)
@pytest.mark.parametrize("sender", ("router", "backend"))
def test_error_about_what_the_backend_was_sent(service, forward, name, family, code, length, sender):
    """Goes to the client, about what the client had sent."""
    flow = Flow(service, forward, name, family)
    source = flow.backend if sender == "backend" else network(family, ROUTER, ROUTER6)
    seen = flow.vip if sender == "backend" else source
    head = Ether(src=backend_mac(flow.backend), dst=stand.NODE_MAC)
    quote = quoted(flow, flow.source, flow.backend, flow.arrives(), length)
    wanted = quoted(flow, flow.client, flow.vip, flow.there(), length)
    verdict, out = stand.send(head / flow.ip(source, flow.source) / error(family, code) / Raw(quote))
    assert verdict == "tx"
    assert out == sums_filled(Ether(**TO_CLIENT) / flow.ip(seen, flow.client, ttl=63) / error(family, code) / Raw(wanted))


@pytest.mark.parametrize("forward,name,family,code,length", ERRORS)
def test_error_about_what_the_client_was_sent(service, forward, name, family, code, length):
    """Goes to the backend, about what the backend had answered."""
    flow = Flow(service, forward, name, family)
    router = network(family, ROUTER, ROUTER6)
    quote = quoted(flow, flow.vip, flow.client, flow.returns(), length)
    wanted = quoted(flow, flow.backend, flow.source, flow.back(), length)
    verdict, out = stand.send(Ether(**FROM_CLIENT) / flow.ip(router, flow.vip) / error(family, code) / Raw(quote))
    assert verdict == "tx"
    assert out == sums_filled(Ether(src=stand.NODE_MAC, dst=backend_mac(flow.backend)) /
                              flow.ip(router, flow.backend, ttl=63) / error(family, code) / Raw(wanted))


@pytest.mark.parametrize("forward,name,family", KINDS)
@pytest.mark.parametrize("length", (8, 9, 19, 20))
@pytest.mark.parametrize("padding", (b"\0" * 12, b"\xaa" * 13), ids=("zeroes", "garbage"))
def test_error_with_bytes_behind_it(service, forward, name, family, length, padding):
    """A short error is padded to what Ethernet takes: nothing of that is quoted, and no checksum covers it."""
    flow = Flow(service, forward, name, family)
    router = network(family, ROUTER, ROUTER6)
    quote = quoted(flow, flow.vip, flow.client, flow.returns(), length)
    wanted = quoted(flow, flow.backend, flow.source, flow.back(), length)
    if name == "tcp" and length < 20:    # the checksum is not quoted, or not translated without the rest of the header
        wanted = wanted[:16 - length + len(wanted)] + quote[16 - length + len(quote):] if length > 16 else wanted
    sent = Ether(**FROM_CLIENT) / flow.ip(router, flow.vip) / error(family, "port") / Raw(quote)
    verdict, out = stand.send(bytes(sent) + padding)
    assert verdict == "tx"
    assert out == sums_filled(Ether(src=stand.NODE_MAC, dst=backend_mac(flow.backend)) /
                              flow.ip(router, flow.backend, ttl=63) / error(family, "port") / Raw(wanted)) + padding


@pytest.mark.parametrize("forward,name,family", KINDS)
def test_padding_quotes_nothing(service, forward, name, family):
    """An error that quotes too little to tell a flow, with what the rest of the quote would be behind the packet."""
    flow = Flow(service, forward, name, family)
    quote = quoted(flow, flow.vip, flow.client, flow.returns(), 8)
    sent = bytes(Ether(**FROM_CLIENT) / flow.ip(network(family, ROUTER, ROUTER6), flow.vip) / error(family, "port") /
                 Raw(quote[:-1])) + quote[-1:]
    assert stand.send(sent) == ("pass", sent)


@pytest.mark.parametrize("forward,name,family", KINDS)
def test_errors_that_are_not_ours(service, forward, name, family):
    """About flows that are not known, or quoting what was never sent to where the error goes: as they came."""
    flow = Flow(service, forward, name, family)
    router = network(family, ROUTER, ROUTER6)
    unknown = transport(name, sport=80, dport=1, flags="A")
    for destination, quote in ((flow.vip, quoted(flow, flow.vip, flow.client, unknown, 8)),
                               (flow.vip, quoted(flow, router, flow.client, flow.returns(), 8)),
                               (flow.vip, quoted(flow, flow.vip, flow.client, flow.returns(), 7)),
                               (flow.vip, quoted(flow, flow.vip, flow.client, flow.returns(), 8)[:19])):
        sent = bytes(Ether(**FROM_CLIENT) / flow.ip(router, destination) / error(family, "port") / Raw(quote))
        assert stand.send(sent) == ("pass", sent)


@pytest.mark.parametrize("family", (4, 6))
def test_an_error_moves_no_flow_on(service, family):
    """What an error quotes is no packet of the flow: nothing is counted as a flow, no state changes."""
    flow = Flow(service, "nat", "tcp", family)
    quote = quoted(flow, flow.vip, flow.client, flow.returns("R"), 20)
    stand.send(Ether(**FROM_CLIENT) / flow.ip(network(family, ROUTER, ROUTER6), flow.vip) / error(family, "ttl") / Raw(quote))
    verdict, out = stand.send(frame(flow.client, flow.vip, flow.there("S")))
    assert verdict == "tx" and port_of(out, "tcp") == flow.nat_port


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("name", ("tcp", "udp"))
@pytest.mark.parametrize("ttl", (0, 1))
@pytest.mark.parametrize("link", LINKS)
def test_no_hop_left(service, family, name, ttl, link):
    """ICMP time exceeded in the VIP's name, quoting the packet: a step of a traceroute."""
    service(vip_text(family, 80, name), [backend_text(family, 8080)])
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    sent = frame(client, vip, transport(name, sport=next(PORTS), dport=80, flags="S"), LINKS[link], ttl=ttl)
    expected = Ether(**TO_CLIENT)
    for tag in LINKS[link]:
        expected /= tag.copy()
    if family == 4:
        expected /= IP(src=vip, dst=client, ttl=64, id=0, flags="DF") / ICMP(type=11)
    else:
        expected /= IPv6(src=vip, dst=client, hlim=64) / ICMPv6TimeExceeded()
    verdict, out = stand.send(sent)
    assert verdict == "tx"
    assert out == bytes(expected / Raw(sent[14 + 4 * len(LINKS[link]):]))


@pytest.mark.parametrize("family,most", ((4, 576), (6, 1280)))
@pytest.mark.parametrize("size", (500, 1231, 1232, 1400))
def test_a_long_packet_is_quoted_in_part(service, family, most, size):
    """No more than makes an error of 576 bytes (RFC 1812, 4.3.2.3), and no less of IPv6 than 1280 (RFC 4443, 2.4 c); whole words."""
    service(vip_text(family, 80, "udp"))
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    sent = frame(client, vip, UDP(sport=next(PORTS), dport=80), payload=b"x" * size)
    verdict, out = stand.send(sent)
    quoted_bytes = min(QUOTED[family], (len(sent) - 14) & ~3)
    assert verdict == "tx" and len(out) <= 14 + most
    if family == 4:
        headers = IP(src=vip, dst=client, ttl=64, id=0, flags="DF") / ICMP(type=3, code=3)
    else:
        headers = IPv6(src=vip, dst=client, hlim=64) / ICMPv6DestUnreach(code=4)
    assert out == bytes(Ether(**TO_CLIENT) / headers / Raw(sent[14:14 + quoted_bytes]))


BAD_SOURCES = {
    "the VIP itself": (4, VIP), "multicast": (4, "224.0.0.1"), "the last multicast": (4, "239.255.255.255"),
    "loopback": (4, "127.0.0.1"), "this network": (4, "0.0.0.0"), "broadcast": (4, "255.255.255.255"),
    "the VIP itself, IPv6": (6, VIP6), "multicast, IPv6": (6, "ff02::1"), "unspecified, IPv6": (6, "::"),
    "loopback, IPv6": (6, "::1"),
}


@pytest.mark.parametrize("what", BAD_SOURCES)
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_impossible_source(service, what, name):
    """Dropped by name, and never answered; to others than VIPs, not ours."""
    family, source = BAD_SOURCES[what]
    vip, other = network(family, VIP, VIP6), network(family, "203.0.113.99", "2001:db8:99::99")
    service(vip_text(family, 80, name), [backend_text(family, 8080)])
    before = stand.drops()["XLB_DROP_BAD_SOURCE"]
    assert stand.send(frame(source, vip, transport(name, sport=80, dport=80, flags="S")))[0] == "drop"
    assert stand.drops()["XLB_DROP_BAD_SOURCE"] == before + 1
    assert stand.send(frame(source, other, transport(name, sport=80, dport=80, flags="S")))[0] == "pass"


@pytest.mark.parametrize("source,family", [("223.255.255.255", 4), ("240.0.0.1", 4), ("128.0.0.1", 4), ("126.1.1.1", 4),
                                           ("1.0.0.0", 4), ("::2", 6), ("fe80::1", 6)])
def test_possible_source(service, source, family):
    """Beside the bounds: served."""
    service(vip_text(family, 80, "udp"))
    assert stand.send(frame(source, network(family, VIP, VIP6), UDP(sport=80, dport=80)))[0] == "tx"


LIES = {
    "TCP data offset under 20": lambda packet: packet.__setitem__(46, 0x40),
    "TCP data offset over the packet": lambda packet: packet.__setitem__(46, 0xf0),
    "IP length over the frame": lambda packet: packet.__setitem__(17, packet[17] + 1),
    "IP length under TCP": lambda packet: packet.__setitem__(slice(16, 18), b"\0\x27"),
    "IP length under its header": lambda packet: packet.__setitem__(slice(16, 18), b"\0\x13"),
}
UDP_LIES = {"UDP length under 8": 7, "UDP length over the packet": 21, "UDP length 0": 0}


def lie_is_told(packet, key):
    before = stand.drops()["XLB_DROP_MALFORMED"]
    assert stand.send(packet)[0] == "drop"
    assert stand.drops()["XLB_DROP_MALFORMED"] == before + 1
    stand.lbctl("services", "del", key)
    assert stand.send(packet) == ("pass", bytes(packet))


@pytest.mark.parametrize("what", LIES)
def test_lengths_that_lie(service, what):
    """To a VIP: dropped by name. To anybody else: as they came."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    packet = bytearray(frame(CLIENT, VIP, TCP(sport=next(PORTS), dport=80, flags="S")))
    LIES[what](packet)
    lie_is_told(packet, key)


@pytest.mark.parametrize("what", UDP_LIES)
@pytest.mark.parametrize("family", (4, 6))
def test_udp_lengths_that_lie(service, what, family):
    key = service(vip_text(family, 80, "udp"), [backend_text(family, 8080)])
    packet = frame(network(family, CLIENT, CLIENT6), network(family, VIP, VIP6),
                   UDP(sport=next(PORTS), dport=80, len=UDP_LIES[what]))
    lie_is_told(packet, key)


@pytest.mark.parametrize("family", (4, 6))
def test_bytes_behind_the_packet(service, family):
    """Padding of short Ethernet frames belongs to no packet: it is neither a lie nor counted."""
    flow = Flow(service, "nat", "udp", family)
    sent = frame(flow.client, flow.vip, flow.there(), payload=b"x") + b"\0" * 17
    verdict, out = stand.send(sent)
    assert verdict == "tx" and len(out) == len(sent)
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == flow.key]
    assert entry["bytes"] == network(family, 20, 40) * 2 + 16 + 12 + 1


RATION = 1000   # ICMP errors in a second, on a CPU


def test_errors_are_rationed(service):
    """Who asks again and again is told so only so often: a flood is not answered by another. A token bucket: what a moment brings can be
    had after that moment, and no more than that."""
    if stand.ON_THE_WIRE:
        pytest.skip("the CPU that a frame on the wire meets cannot be chosen")
    service(vip_text(4, 80, "udp"))
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # each CPU has a ration of its own
    try:
        before, start, verdicts = stand.drops()["XLB_DROP_RATE_LIMITED"], time.monotonic(), []
        with stand.sender(frame(CLIENT, VIP, UDP(sport=next(PORTS), dport=80))) as again:
            while verdicts[-1:] != ["drop"]:
                verdicts.append(again()[0])
                if len(verdicts) > 20 * RATION:
                    pytest.skip("this machine cannot send more packets in a second than are answered")
            empty = time.monotonic()
            assert len(verdicts) <= RATION * (1 + empty - start) + 11
            time.sleep(0.1)
            later = [again()[0] for _ in range(RATION // 2)]
        assert RATION // 20 <= later.count("tx") <= RATION * (time.monotonic() - empty) + 11
        verdicts += later
    finally:
        os.sched_setaffinity(0, cpus)
        time.sleep(1.1)  # a full ration for those who come after
    assert stand.drops()["XLB_DROP_RATE_LIMITED"] == before + verdicts.count("drop")


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("link", LINKS)
def test_echo(service, family, link):
    """A VIP answers a ping; an address without services does not."""
    service(vip_text(family, 80, "tcp"))
    client = network(family, CLIENT, CLIENT6)
    for vip, answered in ((network(family, VIP, VIP6), True), (network(family, "203.0.113.99", "2001:db8:99::99"), False)):
        there, back = Ether(**FROM_CLIENT), Ether(**TO_CLIENT)
        for tag in LINKS[link]:
            there, back = there / tag.copy(), back / tag.copy()
        if family == 4:
            there /= IP(src=client, dst=vip, id=1) / ICMP(id=7, seq=3)
            back /= IP(src=vip, dst=client, id=1) / ICMP(type=0, id=7, seq=3)
        else:
            there /= IPv6(src=client, dst=vip) / ICMPv6EchoRequest(id=7, seq=3)
            back /= IPv6(src=vip, dst=client) / ICMPv6EchoReply(id=7, seq=3)
        for payload in (b"payload of a ping", b"", b"x"):
            sent = bytes(there / Raw(payload))
            assert stand.send(sent) == (("tx", bytes(back / Raw(payload))) if answered else ("pass", sent))


@pytest.mark.parametrize("source,family", [(VIP, 4), ("224.0.0.1", 4), ("255.255.255.255", 4), (VIP6, 6), ("ff02::1", 6)])
def test_echo_to_nobody(service, source, family):
    """An answer would go to the VIP itself, or to many."""
    service(vip_text(family, 80, "tcp"))
    vip, ping = network(family, (VIP, ICMP()), (VIP6, ICMPv6EchoRequest()))
    sent = frame(source, vip, ping)
    assert stand.send(sent) == ("pass", sent)
