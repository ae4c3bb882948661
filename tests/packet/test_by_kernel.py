# SPDX-License-Identifier: GPL-2.0
"""What goes by the kernel although its next hop is known: packets to be fragmented, packets whose checksum may not be finished, and
fragments that come before their first."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import socket
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import (BACKEND, BACKEND6, CLIENT, CLIENT6, LINKS, PORTS, VIP, VIP6, backend_mac, backend_text, frame, network,
                    transport, vip_text)
from test_modes import MODES, addresses, expected, tagged
from test_packets import dumped
from test_unusual import cut
from world import PIN_DIR

NOTE_BYTES = 32
DEVICE_BYTES, DEVICE_VLANS, ATTACH_GENERIC, PARTIAL_TAGS = 16, 16, 2, 2   # struct xlb_device, and in abi.h
HELD, HELD_BYTES, HELD_FULL = 64, 2064, 2   # places, struct xlb_held, enum xlb_held_state
ALL_MODES = [("nat", 4, 4), ("nat", 6, 6), ("nat", 4, 6), ("nat", 6, 4), ("dnat", 4, 4), ("dnat", 6, 6), *MODES]


@dataclasses.dataclass
class Note:
    """struct xlb_note."""
    ifindex: int
    family: int
    udp: bool
    held: bool
    check: int
    mtu: int
    address_sum: int
    other_sum: int
    datagram: bytes
    next_hop: bytes

    @classmethod
    def read(cls, data):
        _, ifindex, family, check, mtu = struct.unpack_from("=IIBBH", data)
        address_sum, other_sum = struct.unpack_from("!HH", data, 12)
        return cls(ifindex, family & 63, bool(family & 64), bool(family & 128), 2 * check, mtu, address_sum, other_sum,
                   data[12:16], data[16:32])

    @property
    def tunnel(self):
        return self.check // 2


@pytest.fixture(autouse=True)
def note():
    stand.needs_the_note()


def noted(out):
    """A note, and the frame behind it."""
    return Note.read(out), out[NOTE_BYTES:]


def without_tag(link, packet):
    """The frame as tc sees it: the tag that stays is beside it."""
    return packet[:12] + packet[16:] if link == "vlan" else packet


def v0():
    return int(pathlib.Path("/sys/class/net/v0/ifindex").read_text(encoding="ascii"))


def fold(total):
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def words(data):
    data = bytes(data) + bytes(len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def pseudo(packet, protocol):
    """The folded sum of a packet's pseudo header: what a sender leaves where the device is to put the checksum."""
    if IPv6 in packet:
        ip = packet[IPv6]
        return fold(words(socket.inet_pton(socket.AF_INET6, ip.src)) + words(socket.inet_pton(socket.AF_INET6, ip.dst)) +
                    protocol + len(bytes(ip.payload)))
    ip = packet[IP]
    return fold(words(socket.inet_aton(ip.src)) + words(socket.inet_aton(ip.dst)) + protocol + len(bytes(ip.payload)))


def check_at(sent, name, link):
    return 14 + 4 * len(link) + (40 if Ether(sent).getlayer(IPv6) else 20) + (16 if name == "tcp" else 6)


def left_to_device(sent, name, link=()):
    at = check_at(sent, name, link)
    return sent[:at] + struct.pack("!H", pseudo(Ether(sent), 6 if name == "tcp" else 17)) + sent[at + 2:]


def adjusted(check, *sums):
    """As the kernel takes sums into a checksum that is complete."""
    return 0xffff ^ fold((0xffff ^ check) + sum(sums))


def inner(forward, family, packet):
    """The packet as the backend sees it."""
    if forward in ("nat", "dnat", "l2"):
        return packet
    at = 14 + network(family, 20, 40) + (8 if forward == "gue" else 0)
    layer = IP if packet[at] >> 4 == 4 else IPv6
    return bytes(Ether() / layer(packet[at:]))


@pytest.mark.parametrize("forward,family,outer", ALL_MODES)
@pytest.mark.parametrize("name", ("tcp", "udp"))
@pytest.mark.parametrize("link", LINKS)
def test_checksum_left_to_a_device(service, forward, family, outer, name, link):
    """It stays half a checksum: of the new pseudo header, once tc has added what the addresses add, and in the tunnel as it was."""
    client, vip = addresses(family)
    port = 8080 if forward in ("nat", "dnat") else 80
    key = service(vip_text(family, 80, name), [backend_text(outer, port)], forward=forward)
    sent = frame(client, vip, transport(name, sport=next(PORTS), dport=80, flags="S"), LINKS[link])
    verdict, out = stand.send(left_to_device(sent, name, LINKS[link]), partial=True)
    assert verdict == "pass"
    note, packet = noted(out)
    assert (note.ifindex, note.mtu, note.udp) == (v0(), 0, name == "udp")
    assert note.family == (outer if forward == "l2" else 0)
    half = pseudo(Ether(sent), 6 if name == "tcp" else 17)
    packet = without_tag(link, packet)
    assert struct.unpack_from("!H", packet, note.check)[0] == half
    seen = Ether(inner(forward, outer, packet))
    assert fold(half + note.address_sum) == pseudo(seen, 6 if name == "tcp" else 17)
    if forward not in ("nat", "dnat"):
        assert note.address_sum in (0, 0xffff) and note.other_sum in (0, 0xffff)
    assert Ether(packet).dst == stand.NODE_MAC
    (counters,) = [entry for entry in stand.lbctl_json("backends", "list") if entry["service"] == key]
    assert counters["packets"] == 1


@pytest.mark.parametrize("forward,family,outer", ALL_MODES)
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_whole_checksum_that_looks_like_half(service, forward, family, outer, name):
    """One packet in 65,536 has one; both sums make it right again."""
    client, vip = addresses(family)
    service(vip_text(family, 80, name), [backend_text(outer, 80)], forward=forward)
    sport = next(PORTS)

    def packet(last):
        return frame(client, vip, transport(name, sport=sport, dport=80, flags="S"), payload=struct.pack("!6xH", last))

    at = check_at(packet(0), name, ())
    whole = struct.unpack_from("!H", packet(0), at)[0]
    sent = packet(fold(whole + 0xffff - pseudo(Ether(packet(0)), 6 if name == "tcp" else 17)))
    assert sent == left_to_device(sent, name)
    # Where no device leaves checksums to us it is like any other.
    assert stand.send(sent)[0] == "tx"
    verdict, out = stand.send(sent, partial=True)
    assert verdict == "pass"
    note, packet = noted(out)
    check = adjusted(struct.unpack_from("!H", packet, note.check)[0], note.address_sum, note.other_sum)
    right = Ether(inner(forward, outer, packet[:note.check] + struct.pack("!H", check) + packet[note.check + 2:]))
    again = right.copy()
    del again[TCP if name == "tcp" else UDP].chksum
    assert bytes(again) == bytes(right)


def test_mss_under_half_a_checksum(service):
    """What changes under the checksum, beside addresses and ports, does not change half of one."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80)], mss=1200)
    sent = frame(CLIENT, VIP, TCP(sport=next(PORTS), dport=80, flags="S", options=[("MSS", 1460)]))
    verdict, out = stand.send(left_to_device(sent, "tcp"), partial=True)
    note, packet = noted(out)
    assert verdict == "pass" and dict(Ether(packet)[TCP].options)["MSS"] == 1200
    assert fold(pseudo(Ether(sent), 6) + note.address_sum) == pseudo(Ether(packet), 6)
    changed = fold(words(bytes(Ether(packet)[TCP])) + 0xffff - fold(words(bytes(Ether(left_to_device(sent, "tcp"))[TCP]))))
    assert fold(note.other_sum) % 0xffff == changed % 0xffff


@contextlib.contextmanager
def in_generic_mode(vlans):
    """v0 as if lbctl had attached to it so, with VLAN sub-interfaces or without."""
    before = []

    def device(value):
        before.append(value)
        flags = struct.unpack("=I", value[:4])[0] | vlans * DEVICE_VLANS
        return struct.pack("=II", flags, ATTACH_GENERIC) + value[8:]

    def config(number):
        at = stand.CONFIG_PARTIAL + 4
        stand.map_change("config", 0, stand.CONFIG_BYTES, lambda value: value[:at] + struct.pack("=I", number) + value[at + 4:])

    stand.map_change("devices", v0(), DEVICE_BYTES, device)
    config(vlans)
    try:
        yield
    finally:
        stand.map_change("devices", v0(), DEVICE_BYTES, lambda value: before[0])
        config(0)


@pytest.mark.parametrize("mode,family,outer", [("nat", 4, 4), ("nat", 4, 6), ("dnat", 6, 6), ("ipip", 4, 4), ("l2", 6, 6)])
def test_a_tag_that_xdp_does_not_see(service, mode, family, outer):
    """In generic mode it goes along with what leaves by XDP: out of a device with sub-interfaces, where it is of another link than the
    device, tc sends instead, which can take it off."""
    client, vip = addresses(family)
    service(vip_text(family, 80, "tcp"), [backend_text(outer, 80)], forward=mode)
    first = frame(client, vip, TCP(sport=next(PORTS), dport=80, flags="S"))
    right = stand.send(first)
    assert right[0] == "tx"
    for vlans in (False, True):
        with in_generic_mode(vlans):
            assert stand.send(first)[0] == "tx" or vlans       # the bit of config.partial says whether to look
            verdict, out = stand.send(first, partial=PARTIAL_TAGS)
        if not vlans:
            assert (verdict, out) == right
            continue
        sent, packet = noted(out)
        assert verdict == "pass" and sent.ifindex == v0() and not sent.check
        assert packet[14:] == right[1][14:]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_reply_with_half_a_checksum(service, family, name):
    client, vip = addresses(family)
    service(vip_text(family, 80, name), [backend_text(family, 80)])
    sport = next(PORTS)
    verdict, out = stand.send(frame(client, vip, transport(name, sport=sport, dport=80, flags="S")))
    assert verdict == "tx"
    there = Ether(out)
    ip, ports = there[network(family, IP, IPv6)], there[TCP if name == "tcp" else UDP]
    sent = frame(ip.dst, ip.src, transport(name, sport=80, dport=ports.sport, flags="SA"))
    verdict, out = stand.send(left_to_device(sent, name), partial=True)
    note, packet = noted(out)
    assert verdict == "pass" and note.ifindex == v0()
    back = Ether(packet)
    assert (back[network(family, IP, IPv6)].src, back[network(family, IP, IPv6)].dst) == (vip, client)
    assert fold(pseudo(Ether(sent), 6 if name == "tcp" else 17) + note.address_sum) == pseudo(back, 6 if name == "tcp" else 17)


def large(size, flags="", **fields):
    """A UDP packet of so many bytes with its IPv4 header."""
    return bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / IP(src=CLIENT, dst=VIP, flags=flags, id=77, **fields) /
                 UDP(sport=next(PORTS), dport=80) / Raw(b"x" * (size - 28)))


@pytest.mark.parametrize("forward,outer", [*itertools.product(("ipip", "gue"), (4, 6)), ("nat", 6)])
def test_fragmented_on_its_way(service, forward, outer):
    """Too long once it is in the tunnel, or has the longer header, and nobody asked to be told: tc is to fragment it."""
    service(vip_text(4, 80, "udp"), [backend_text(outer, 80)], forward=forward)
    sent = large(1500)
    verdict, out = stand.send(sent)
    note, packet = noted(out)
    assert verdict == "pass" and (note.ifindex, note.mtu, note.check, note.family) == (v0(), 1500, 0, 0)
    assert (Ether(packet).dst, Ether(packet).src) == (stand.NODE_MAC, stand.CLIENT_MAC)
    if forward == "nat":
        assert packet[14] >> 4 == 6 and len(packet) == 14 + 1520
    else:
        right = expected(packet, sent, forward, 4, outer)
        assert packet[12:] == right[12:]


@pytest.mark.parametrize("flags,fields", [("DF", {}), ("", {"options": [IPOption_NOP()]})], ids=["DF", "options"])
@pytest.mark.parametrize("forward,outer", [("ipip", 4), ("ipip", 6), ("nat", 6)])
def test_answered_instead(service, forward, outer, flags, fields):
    """Who asked to be told is told; and whose options not all fragments would have."""
    service(vip_text(4, 80, "udp"), [backend_text(outer, 80)], forward=forward)
    verdict, out = stand.send(large(1500 if flags else 1496, flags, **fields))
    assert verdict == "tx" and Ether(out).dst == stand.CLIENT_MAC and out[14 + 20] == 3


def test_fragments_are_fragmented(service):
    """The first fragment of a datagram, and the one that follows, fill the link: both are too long for the tunnel."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)], forward="ipip")
    sport = next(PORTS)
    whole = bytes(UDP(sport=sport, dport=80) / Raw(b"y" * 2952))
    for offset in (0, 1480):
        part = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) /
                     IP(src=CLIENT, dst=VIP, id=99, proto=17, flags="MF" if not offset else 0, frag=offset // 8) /
                     Raw(whole[offset:offset + 1480]))
        verdict, out = stand.send(part)
        note, packet = noted(out)
        assert verdict == "pass" and note.mtu == 1500
        assert Ether(packet)[IP].dst == BACKEND and len(packet) == len(part) + 20


def pieces(family, link, port=80):
    """(the first fragment of a datagram, the others) as frames, from a port of its own."""
    client, vip = addresses(family)
    whole = network(family, IP, IPv6)(src=client, dst=vip) / UDP(sport=next(PORTS), dport=port) / Raw(bytes(range(250)) * 9)
    first, others = cut(whole, family, next(PORTS))
    macs = {"src": stand.CLIENT_MAC, "dst": stand.NODE_MAC}
    return bytes(tagged(LINKS[link], first, **macs)), [bytes(tagged(LINKS[link], other, **macs)) for other in others]


def with_link(packet, like, link):
    """The same with the addresses of another frame's link, and with what is left of its tags."""
    tags = like[12:16] if link == "vlan" else b""
    return like[:12] + tags + packet[12:]


@pytest.mark.parametrize("forward,family,outer", [mode for mode in ALL_MODES if mode[0] != "nat" or mode[1] == mode[2]])
@pytest.mark.parametrize("link", LINKS)
def test_fragments_before_their_first(service, forward, family, outer, link):
    """They are left to tc as they came; their first tells it so, and where they are to go; who comes behind it goes straight. All are
    counted, once it is known whose they were."""
    port = 8080 if forward in ("nat", "dnat") else 80
    key = service(vip_text(family, 80, "udp"), [backend_text(outer, port)], forward=forward)
    first, others = pieces(family, link)
    tags = 4 * len(LINKS[link])

    def counters():
        return [entry for entry in stand.lbctl_json("backends", "list") if entry["service"] == key][0]

    datagrams = set()
    for sent in reversed(others):
        verdict, out = stand.send(sent)
        note, packet = noted(out)
        assert (verdict, note.ifindex, note.held, note.mtu, note.tunnel) == ("pass", 0, True, 0, 0)
        assert packet == sent[:12] + sent[12 + tags:]
        datagrams.add(note.datagram)
    assert len(datagrams) == 1 and counters()["packets"] == 0
    verdict, out = stand.send(first)
    note, packet = noted(out)
    assert (verdict, note.ifindex, note.held, note.mtu) == ("pass", v0(), True, 0)
    assert note.datagram in datagrams
    added = 0 if forward in ("nat", "dnat", "l2") else network(outer, 20, 40) + (8 if forward == "gue" else 0)
    assert note.tunnel == added and note.family == (outer if forward == "l2" else 0)
    whole = first[:12] + first[12 + tags:]
    if forward not in ("nat", "dnat"):
        right = expected(without_tag(link, packet), whole, forward, family, outer)
        assert packet == with_link(right, first, link)
    assert counters()["packets"] == 1 + len(others)
    assert counters()["bytes"] == sum(len(sent) - 14 - tags for sent in (first, *others))
    verdict, out = stand.send(others[0])
    assert verdict == "tx" and backend_mac(network(outer, BACKEND, BACKEND6)) == Ether(out).dst


@pytest.mark.parametrize("family", (4, 6))
def test_fragments_of_an_answer_before_their_first(service, family):
    """Where a backend answers to an address that is a VIP, as a node port's is: what was kept counts as going to the client."""
    key = service(vip_text(family, 80, "udp"), [backend_text(family, 8080)])
    node, backend, client, vip = network(family, (stand.NODE, BACKEND, CLIENT, VIP), (stand.NODE6, BACKEND6, CLIENT6, VIP6))
    service(f"{network(family, node, f'[{node}]')}:31000/udp", [backend_text(family, 8081)])
    asked = frame(client, vip, UDP(sport=next(PORTS), dport=80))
    verdict, out = stand.send(asked)
    assert verdict == "tx"
    answer = network(family, IP, IPv6)(src=backend, dst=node) / UDP(sport=8080, dport=Ether(out)[UDP].sport) / Raw(b"a" * 2500)
    first, others = cut(answer, family, next(PORTS))
    link = Ether(src=backend_mac(backend), dst=stand.NODE_MAC)
    for piece in (*reversed(others), first):
        verdict, out = stand.send(bytes(link / piece))
        assert verdict == "pass" and noted(out)[0].held
    sizes = [len(bytes(piece)) for piece in (first, *others)]
    stand.wait_for(lambda: dumped(key) == [1, len(asked) - 14, len(sizes), sum(sizes), 1], 2, "all to be counted")


def test_a_first_fragment_of_its_own_goes_straight(service):
    """Others of the same client, with other numbers, wait in vain."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)])
    _, others = pieces(4, "untagged")
    assert stand.send(others[0])[0] == "pass"
    first, _ = pieces(4, "untagged")
    assert stand.send(first)[0] == "tx"


def test_first_fragment_that_is_refused(service):
    """Who waited for it stays where it is."""
    key = service(vip_text(4, 80, "udp"))
    first, others = pieces(4, "untagged")
    assert stand.send(others[0])[0] == "pass"
    verdict, out = stand.send(first)
    assert verdict == "tx" and out[14 + 20] == 3
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == key]
    assert (entry["refused"], entry["packets"]) == (1, 0)


def early(size=64, ttl=64, cut_short=0, ident=None):
    packet = IP(src=CLIENT, dst=VIP, id=ident or next(PORTS), proto=17, frag=100, ttl=ttl) / Raw(b"z" * (size - 20))
    sent = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / packet)
    return sent[:len(sent) - cut_short]


@pytest.mark.parametrize("fields", [{"ttl": 1}, {"size": 2049}, {"cut_short": 1}], ids=lambda fields: next(iter(fields)))
def test_fragments_that_cannot_wait(service, fields):
    """Without a hop left, longer than their place, shorter than they say."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)])
    before = stand.drops()["XLB_DROP_NO_FRAGMENT"]
    assert stand.send(early(**fields))[0] == "drop"
    assert stand.drops()["XLB_DROP_NO_FRAGMENT"] == before + 1
    assert stand.send(early(size=2048))[0] == "pass"


def test_eight_of_a_datagram_can_wait(service):
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)])
    before, ident = stand.drops()["XLB_DROP_NO_FRAGMENT"], next(PORTS)
    assert [stand.send(early(ident=ident))[0] for _ in range(9)] == ["pass"] * 8 + ["drop"]
    assert stand.drops()["XLB_DROP_NO_FRAGMENT"] == before + 1
    assert stand.send(early())[0] == "pass"


def test_no_place_is_left(service):
    """tc is not troubled with what it could not keep."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)])
    assert stand.send(early())[0] == "pass"
    entries = json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/fragments").stdout)
    now = max(entry["formatted"]["value"]["seen"] for entry in entries)
    taken, free = struct.pack("=IHH", 1, now & 0xffff, HELD_FULL), bytes(8)
    try:
        for place in range(HELD):
            stand.map_change("held", place, HELD_BYTES, lambda value: taken + value[8:])
        before = stand.drops()["XLB_DROP_NO_FRAGMENT"]
        assert stand.send(early())[0] == "drop"
        assert stand.drops()["XLB_DROP_NO_FRAGMENT"] == before + 1
        # Two seconds later they are given away.
        stand.wait_for(lambda: stand.send(early())[0] == "pass", 5, "a place")
    finally:
        for place in range(HELD):
            stand.map_change("held", place, HELD_BYTES, lambda value: free + value[8:])
