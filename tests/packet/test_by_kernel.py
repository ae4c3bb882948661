# SPDX-License-Identifier: GPL-2.0
"""What goes by the kernel although its next hop is known: packets to be fragmented, and packets whose checksum may not be finished."""

import dataclasses
import itertools
import pathlib
import socket
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import BACKEND, CLIENT, LINKS, PORTS, VIP, backend_text, frame, network, transport, vip_text
from test_modes import MODES, addresses, expected

NOTE_BYTES = 32
ALL_MODES = [("nat", 4, 4), ("nat", 6, 6), ("nat", 4, 6), ("nat", 6, 4), ("dnat", 4, 4), ("dnat", 6, 6), *MODES]


@dataclasses.dataclass
class Note:
    """struct xlb_note."""
    ifindex: int
    family: int
    udp: bool
    check: int
    mtu: int
    address_sum: int
    other_sum: int
    next_hop: bytes

    @classmethod
    def read(cls, data):
        _, ifindex, family, check, mtu = struct.unpack_from("=IIBBH", data)
        address_sum, other_sum = struct.unpack_from("!HH", data, 12)
        return cls(ifindex, family & 127, bool(family >> 7), 2 * check, mtu, address_sum, other_sum, data[16:32])


@pytest.fixture(autouse=True)
def note():
    stand.needs_the_note()


def noted(out):
    """A note, and the frame behind it."""
    return Note.read(out), out[NOTE_BYTES:]


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
@pytest.mark.parametrize("link", ("untagged", "qinq"))
def test_checksum_left_to_a_device(service, forward, family, outer, name, link):
    """It stays half a checksum: of the new pseudo header, once tc has added what the addresses add, and in the tunnel as it was."""
    client, vip = addresses(family)
    port = 8080 if forward in ("nat", "dnat") else 80
    key = service(vip_text(family, 80, name), [backend_text(outer, port)], forward=forward)
    sent = frame(client, vip, transport(name, sport=next(PORTS), dport=80, flags="S"), LINKS[link])
    verdict, out = stand.send(left_to_device(sent, name, LINKS[link]))
    assert verdict == "pass"
    note, packet = noted(out)
    assert (note.ifindex, note.mtu, note.udp) == (v0(), 0, name == "udp")
    assert note.family == (outer if forward == "l2" else 0)
    half = pseudo(Ether(sent), 6 if name == "tcp" else 17)
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
    verdict, out = stand.send(sent)
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
    verdict, out = stand.send(left_to_device(sent, "tcp"))
    note, packet = noted(out)
    assert verdict == "pass" and dict(Ether(packet)[TCP].options)["MSS"] == 1200
    assert fold(pseudo(Ether(sent), 6) + note.address_sum) == pseudo(Ether(packet), 6)
    changed = fold(words(bytes(Ether(packet)[TCP])) + 0xffff - fold(words(bytes(Ether(left_to_device(sent, "tcp"))[TCP]))))
    assert fold(note.other_sum) % 0xffff == changed % 0xffff


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
    verdict, out = stand.send(left_to_device(sent, name))
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
