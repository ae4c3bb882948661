# SPDX-License-Identifier: GPL-2.0
"""Drops that no packet alone can bring about: tables that are full, rings that are broken; and what a full table keeps."""

import errno
import pathlib
import random
import re
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import BACKEND, CLIENT, PORTS, VIP, backend_mac, backend_text, frame, transport, vip_text
from tables import (ANSWERED, CLOSED, CLOSING, ESTABLISHED, FIN_BACKEND, FIN_CLIENT, ONESIDED, ONEWAY, STREAM, SYN, config,
                    flow_state, flow_value, mapped, table_of_flows)

LINE, SERVICE = 64, 32          # bytes of struct xlb_ring_line and xlb_service


def dropped(before):
    return {reason: count - before[reason] for reason, count in stand.drops().items() if count != before[reason]}


@pytest.fixture(name="flows")
def make_flows():
    with table_of_flows(4) as flows:
        yield flows


def begin(source, flags="S"):
    return stand.send(frame(source, VIP, TCP(sport=next(PORTS), dport=80, flags=flags)))


@pytest.mark.parametrize("forward,which,reason", [
    ("nat", 0, "XLB_DROP_FLOWS_FULL"), ("nat", 1, "XLB_DROP_PORTS_EXHAUSTED"),
    ("dnat", 0, "XLB_DROP_FLOWS_FULL"), ("dnat", 1, "XLB_DROP_FLOWS_FULL")])
def test_full(service, flows, forward, which, reason):
    """Of flows that somebody has answered: nobody's is taken for a new one."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)], forward=forward)
    assert begin(CLIENT)[0] == "tx"
    flows.fill(which, (ESTABLISHED, flows.tick()))
    before = stand.drops()
    assert begin(CLIENT)[0] == "drop"
    assert dropped(before) == {reason: 1}
    flows.clear()
    assert begin(CLIENT)[0] == "tx"


@pytest.mark.parametrize("state", (SYN, CLOSED, ONEWAY, STREAM, ANSWERED, ONESIDED, CLOSING))
def test_full_of_what_can_be_forged(service, flows, state):
    """Whatever a flood can fill the table with, it locks nobody out."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    assert begin(CLIENT)[0] == "tx"
    seen = flows.tick()
    for which in (0, 1):
        flows.fill(which, (state, seen))
    for _ in range(20):
        assert begin(CLIENT)[0] == "tx"


@pytest.mark.parametrize("state", (ESTABLISHED, FIN_CLIENT, FIN_BACKEND))
def test_full_of_what_both_sides_have_made(service, flows, state):
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    assert begin(CLIENT)[0] == "tx"
    seen = flows.tick()
    flows.fill(0, (state, seen))
    before = stand.drops()
    assert begin(CLIENT)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_FLOWS_FULL": 1}


def test_the_longest_silent_goes_first(service, flows):
    """Of equals: so that flows which are used outlive those of a flood."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80)], forward="ipip", scheduler="rr")
    assert begin(CLIENT)[0] == "tx"
    seen = flows.tick()
    flows.fill(0, (ONESIDED, seen - 10))
    oldest = struct.pack("=Q", flow_value(ONESIDED, seen - 50))
    half = bytearray(flows.memory[:flows.half])
    for at in range(flows.size + 8, flows.half, LINE):     # the second of each line
        half[at:at + 8] = oldest
    flows.memory[:flows.half] = bytes(half)
    for _ in range(50):
        assert begin(CLIENT)[0] == "tx"
    taken = [at % LINE // flows.size for at, value in flows.flows(0) if flow_state(value) == SYN]
    assert taken == [1] * 50


# What a flow comes to: of packets of the client's side (c), which anybody can send in its name, and the backend's (b).
NAT_STATES = [
    ("c:S", SYN), ("c:S c:A", SYN), ("c:S c:FA", SYN), ("c:S c:R", SYN), ("c:S c:PA c:FA c:A", SYN),
    ("c:S b:SA", ANSWERED), ("c:S b:SA b:SA", ANSWERED), ("c:S b:A", ANSWERED), ("c:S b:SA c:S", ANSWERED),
    # of which no stack makes anything, not even a RST
    ("c:S b:SA c:P", ANSWERED), ("c:S b:SA c:F", ANSWERED),
    ("c:S b:SA c:A", ESTABLISHED), ("c:S b:SA c:PA", ESTABLISHED), ("c:S b:SA c:A c:S", ESTABLISHED),
    # a forged ACK: the backend knows better, also while it still repeats its answer
    ("c:S b:SA c:A b:R", CLOSED), ("c:S b:SA c:A b:R b:SA", CLOSED), ("c:S b:SA c:A b:R c:A", CLOSED),
    ("c:S b:RA", CLOSED), ("c:S b:SA b:R", CLOSED),
    ("c:S b:SA c:A c:FA", FIN_CLIENT), ("c:S b:SA c:FA", FIN_CLIENT), ("c:S b:SA c:A b:FA", FIN_BACKEND),
    ("c:S b:SA c:A c:FA b:A b:FA c:A", CLOSED), ("c:S b:SA c:A b:FA c:A c:FA b:A", CLOSED),
    # a RST that may be forged, and what shows that it was
    ("c:S b:SA c:A c:R", CLOSING), ("c:S b:SA c:A c:FA c:R", CLOSING), ("c:S b:SA c:A c:R c:R", CLOSING),
    ("c:S b:SA c:A c:R b:SA", CLOSING), ("c:S b:SA c:A c:R b:PA", ESTABLISHED), ("c:S b:SA c:A c:R c:A", ESTABLISHED),
    ("c:S b:SA c:A c:R c:FA", FIN_CLIENT), ("c:S b:SA c:A c:R b:R", CLOSED), ("c:S b:SA c:A c:R c:A b:R", CLOSED),
    ("c:S b:SA c:A c:R c:S", SYN), ("c:S b:SA c:A b:R c:S", SYN),
]
ONE_SIDED_STATES = [
    ("c:S", SYN), ("c:S c:S", SYN), ("c:S c:FA", SYN), ("c:S c:R", SYN), ("c:S c:P", SYN),
    ("c:S c:A", ONESIDED), ("c:S c:A c:S", ONESIDED),
    ("c:S c:A c:FA", CLOSING), ("c:S c:A c:R", CLOSING), ("c:S c:A c:FA c:A", CLOSING), ("c:S c:A c:FA c:S", SYN),
]


@pytest.mark.parametrize("forward,rows", [("nat", NAT_STATES), ("dnat", NAT_STATES), ("ipip", ONE_SIDED_STATES)],
                         ids=["nat", "dnat", "ipip"])
def test_states(service, flows, forward, rows):
    """In both copies, where there are two."""
    copies = 1 if forward == "ipip" else 2
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080 if copies == 2 else 80)], forward=forward, scheduler="rr")
    sports = {next(PORTS): row for row in rows}
    for sport, (packets, _) in sports.items():
        for packet in packets.split():
            side, flags = packet.split(":")
            if side == "c":
                verdict, out = stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags=flags)))
                way_back = (stand.NODE if forward == "nat" else CLIENT, Ether(out)[TCP].sport)
            else:
                verdict, _ = stand.send(frame(BACKEND, way_back[0], TCP(sport=8080, dport=way_back[1], flags=flags),
                                              macs=(backend_mac(BACKEND), stand.NODE_MAC)))
            assert verdict == "tx", packets
    found = {sport: [] for sport in sports}
    for which in (0, 1):
        for at, value in flows.flows(which):
            (sport,) = struct.unpack_from("!H", flows.memory, at + 4)
            found[sport].append(flow_state(value))
    assert ({packets: found[sport] for sport, (packets, _) in sports.items()} ==
            {packets: [state] * copies for packets, state in rows})


@pytest.mark.heavy
@pytest.mark.parametrize("state", (SYN, ANSWERED, ONESIDED))
def test_a_flood_takes_nobodys_flow(service, flows, state):
    """A table full of what a flood can make of it: new flows take their places, and none takes that of an established one."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    assert begin(CLIENT)[0] == "tx"
    seen = flows.tick()
    kept = []
    for _ in range(20):
        sport = next(PORTS)
        out = Ether(stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="S")))[1])
        reply = frame(BACKEND, stand.NODE, TCP(sport=8080, dport=out[TCP].sport, flags="SA"), macs=(backend_mac(BACKEND), stand.NODE_MAC))
        assert stand.send(reply)[0] == "tx"
        assert stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="A")))[0] == "tx"
        kept.append((sport, out[TCP].sport))
    for which in (0, 1):
        flows.fill(which, (state, seen))
    for _ in range(1500):
        client = f"198.51.{random.randrange(100, 102)}.{random.randrange(1, 255)}"
        assert begin(client)[0] == "tx"
    for sport, port in kept:
        verdict, out = stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="A")))
        assert verdict == "tx" and Ether(out)[TCP].sport == port


@pytest.mark.heavy
def test_a_flood_of_first_fragments_takes_nobodys_flow(service, flows):
    """They begin flows of UDP, which nobody answers."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    service(vip_text(4, 80, "udp"), [backend_text(4, 8080)])
    sport = next(PORTS)
    out = Ether(stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="S")))[1])
    reply = frame(BACKEND, stand.NODE, TCP(sport=8080, dport=out[TCP].sport, flags="SA"), macs=(backend_mac(BACKEND), stand.NODE_MAC))
    assert stand.send(reply)[0] == "tx"
    assert stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="A")))[0] == "tx"
    ((_, value),) = flows.flows(0)
    for which in (0, 1):
        flows.fill(which, (SYN, value >> 48))
    for number in range(1000):
        first = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) /
                      IP(src=f"198.51.100.{number % 250 + 1}", dst=VIP, id=number, flags="MF", proto=17) /
                      Raw(bytes(UDP(sport=next(PORTS), dport=80, len=3000) / Raw(b"x" * 64))))
        assert stand.send(first)[0] == "tx"
    verdict, after = stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="A")))
    assert verdict == "tx" and Ether(after)[TCP].sport == out[TCP].sport


def test_no_route(service):
    service(vip_text(4, 80, "tcp"), ["100.64.9.9:80"])
    before = stand.drops()
    assert begin(CLIENT)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_NO_ROUTE": 1}


@pytest.mark.parametrize("forward", ("nat", "ipip"))
def test_bad_ring(service, forward):
    """A ring that names a backend which is none: with flows, and without."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80)], forward=forward)
    vip = struct.unpack("=I", bytes(map(int, VIP.split("."))))[0] | 80 << 40 | 6 << 48
    with mapped("services", config("services"), SERVICE) as services:
        (target,) = [target for word, target, _, _ in struct.iter_unpack("=QQQQ", services) if word == vip]
    first, size = target & (1 << 28) - 1, target >> 28 & (1 << 24) - 1
    lines = (size + 15) // 16
    with mapped("rings", config("ring_slots") // 16, LINE) as rings:
        there = rings[first * LINE:(first + lines) * LINE]
        rings[first * LINE:(first + lines) * LINE] = struct.pack("=I", config("backends") + 1) * (lines * 16)
        before = stand.drops()
        verdict, _ = begin(CLIENT)
        rings[first * LINE:(first + lines) * LINE] = there
    assert verdict == "drop" and dropped(before) == {"XLB_DROP_BAD_RING": 1}
    assert begin(CLIENT)[0] == "tx"


def test_answer_failed(service):
    """Nobody may answer a later fragment (RFC 1122, 3.2.2): its backend is gone, and there is no other."""
    key = service(vip_text(4, 80, "udp"), [backend_text(4, 8080)])
    sport = next(PORTS)
    whole = bytes(UDP(sport=sport, dport=80) / Raw(b"y" * 200))

    def part(offset):
        return bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) /
                     IP(src=CLIENT, dst=VIP, id=4321, proto=17, flags=0 if offset else "MF", frag=offset // 8) /
                     Raw(whole[offset:offset + 104]))

    assert stand.send(part(0))[0] == "tx"
    stand.lbctl("backends", "del", key, backend_text(4, 8080))
    before = stand.drops()
    assert stand.send(part(104))[0] == "drop"
    assert dropped(before) == {"XLB_DROP_ANSWER_FAILED": 1}


@pytest.mark.parametrize("reason,ttl,length,flags", [("XLB_DROP_TTL", 1, 104, 0), ("XLB_DROP_TOO_BIG", 64, 1470, "DF")])
def test_later_fragments_are_not_answered(service, reason, ttl, length, flags):
    """What its first would be told, nobody may tell a later fragment (RFC 1122, 3.2.2)."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)], forward="ipip")
    ident, head = next(PORTS), Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC)
    first = bytes(UDP(sport=next(PORTS), dport=80, len=3000) / Raw(b"y" * 96))
    assert stand.send(head / IP(src=CLIENT, dst=VIP, id=ident, proto=17, flags="MF") / Raw(first))[0] == "tx"
    later = IP(src=CLIENT, dst=VIP, id=ident, proto=17, frag=13, ttl=ttl, flags=flags) / Raw(b"z" * length)
    before = stand.drops()
    assert stand.send(head / later)[0] == "drop"
    assert dropped(before) == {reason: 1}


@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_land_attack(service, name):
    """From the VIP and its port to itself."""
    service(vip_text(4, 80, name), [backend_text(4, 8080)])
    before = stand.drops()
    assert stand.send(frame(VIP, VIP, transport(name, sport=80, dport=80, flags="S")))[0] == "drop"
    assert dropped(before) == {"XLB_DROP_BAD_SOURCE": 1}


RATIONED = {
    "refused": ("udp", {}, UDP(dport=80), {}, "XLB_DROP_RATE_LIMITED"),
    "middle of nothing": ("tcp", {"backend": 80}, TCP(dport=80, flags="A"), {}, "XLB_DROP_RATE_LIMITED"),
    "no hop left": ("udp", {"backend": 80}, UDP(dport=80), {"ttl": 1}, "XLB_DROP_TTL"),
    "too big": ("udp", {"backend": 80, "forward": "ipip"}, UDP(dport=80), {"payload": bytes(1470), "flags": "DF"}, "XLB_DROP_TOO_BIG"),
}


def jiffies():
    """The kernel's count, as bpf_jiffies64() gives it."""
    with open("/proc/timer_list", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("jiffies:"))


def rations_set(rations, left=None):
    """What each CPU may still answer until its ration is renewed: nothing, as of now, by default; what it was."""
    were = []

    def change(value):
        fields = list(struct.unpack(f"={len(value) // 8}Q", value))
        were.append(fields)
        return struct.pack(f"={len(fields)}Q", *(left or [jiffies(), 0] * (len(fields) // 2)))

    cpus = pathlib.Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().rpartition("-")[2]
    stand.own_map_change(rations, 0, 16 * (int(cpus) + 1), change)
    return were[0]


@pytest.mark.parametrize("what", RATIONED)
def test_answers_that_were_not_sent(service, what):
    """Each is counted by why there was an answer due."""
    name, options, layer, fields, reason = RATIONED[what]
    backends = [backend_text(4, options["backend"])] if "backend" in options else []
    service(vip_text(4, 80, name), backends, forward=options.get("forward", "nat"))
    layer.sport = next(PORTS)
    sent, rations = frame(CLIENT, VIP, layer, **fields), stand.own_map("rations")
    for _ in range(100):
        before = stand.drops()
        left = rations_set(rations)
        verdict, _ = stand.send(sent)
        rations_set(rations, left)
        if verdict == "drop":
            break   # else a jiffy went by in between, which brings some answers
    assert verdict == "drop" and dropped(before) == {reason: 1}
    assert stand.send(sent)[0] == "tx"


def send_crowded(sent):
    """The verdict on a frame that has as much in front of it already as the kernel allows."""
    for most in (252, 224, 216, 200, 32):
        try:
            return stand.send(sent, metadata=most)[0]
        except OSError as error:
            if error.errno != errno.EINVAL or most == 32:
                raise
    return None


def test_no_room_for_the_note(service):
    """What goes by the kernel has a note for tc in front, unless somebody left so much there that it does not fit."""
    stand.needs_the_note()
    service(vip_text(4, 80, "tcp"), ["10.200.7.7:80"])      # a neighbour that is not known yet
    assert begin(CLIENT)[0] == "pass"
    before = stand.drops()
    sent = frame(CLIENT, VIP, TCP(sport=next(PORTS), dport=80, flags="S"))
    assert send_crowded(sent) == "drop" and dropped(before) == {"XLB_DROP_EMIT_FAILED": 1}


@pytest.mark.parametrize("forward,scheduler", [("ipip", "maglev"), ("ipip", "rr"), ("gue", "maglev")])
def test_no_room_for_the_tunnel(service, forward, scheduler):
    """By either walk: the first packet finds a next hop that is not known yet, the third all that it needs."""
    stand.needs_the_note()
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80)], forward=forward, scheduler=scheduler)
    port = next(PORTS)
    for flags, crowded in (("S", True), ("S", False), ("A", True), ("A", False)):
        before = stand.drops()
        sent = frame(CLIENT, VIP, TCP(sport=port, dport=80, flags=flags))
        if crowded:
            assert send_crowded(sent) == "drop" and dropped(before) == {"XLB_DROP_EMIT_FAILED": 1}
        else:
            assert stand.send(sent)[0] == "tx" and not dropped(before)
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == key]
    assert entry["dropped"] == 2 and entry["packets"] == 2


def test_every_reason_has_a_row():
    """In the rows of this folder: a new reason needs one."""
    header = (pathlib.Path(__file__).parents[2] / "include/xlb/abi.h").read_text(encoding="utf-8")
    reasons = set(re.findall(r"^\t(XLB_DROP_\w+) = ", header, re.MULTILINE)) - {"XLB_DROP_NONE", "XLB_DROP_REASONS"}
    rows = "".join(path.read_text(encoding="utf-8") for path in pathlib.Path(__file__).parent.glob("test_*.py"))
    assert len(reasons) > 10
    assert {reason for reason in reasons if f'"{reason}"' not in rows} == set()
