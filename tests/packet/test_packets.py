# SPDX-License-Identifier: GPL-2.0
"""Packets as rows: what comes in, what is to come out, byte by byte, and what is counted. The frames that are expected
are built by scapy, whose checksums are an implementation of their own."""

import itertools
import json
import os
import struct
import time

import features
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (ICMPv6DestUnreach, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop,
                                IPv6ExtHdrRouting, PadN)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

import stand
from frames import (BACKEND, BACKEND6, CLIENT, CLIENT6, LINKS, PORTS, VIP, VIP6, backend_text, frame,
                    network, port_of, transport, vip_text)

NETWORKS = {
    "ipv4": (4, []),
    "ipv4-options": (4, [IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"])]),
    "ipv6": (6, []),
    "ipv6-hopbyhop": (6, [IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])]),
    "ipv6-chain": (6, [IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
                       IPv6ExtHdrRouting(addresses=[]),
                       IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])]),
}


MATRIX = list(itertools.product(("nat", "dnat"), ("maglev", "rr"), ("tcp", "udp"), NETWORKS, LINKS))


@pytest.mark.parametrize("forward,scheduler,name,net,link", MATRIX,
                         ids=["-".join(row) for row in MATRIX])
def test_there_and_back(service, forward, scheduler, name, net, link):
    """A client's first packet, the reply, and the client's next packet: translated exactly, to the same backend."""
    family, extra = NETWORKS[net]
    tags, sport = LINKS[link], next(PORTS)
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    node, backend = network(family, stand.NODE, stand.NODE6), network(family, BACKEND, BACKEND6)
    backend_mac = (stand.BACKENDS | stand.BACKENDS6)[backend]
    key = service(vip_text(family, 80, name), [backend_text(family, 8080)], forward=forward,
                  scheduler=scheduler)

    verdict, out = stand.send(frame(client, vip, transport(name, sport=sport, dport=80, flags="S"),
                                    tags, extra))
    assert verdict == "tx"
    nat_port = port_of(out, name)
    source = node if forward == "nat" else client
    if forward == "dnat":
        assert nat_port == sport
    assert out == frame(source, backend,
                        transport(name, sport=nat_port, dport=8080, flags="S"), tags, extra, 63,
                        macs=(stand.NODE_MAC, backend_mac))

    verdict, out = stand.send(frame(backend, source,
                                    transport(name, sport=8080, dport=nat_port, flags="SA"), tags,
                                    extra, macs=(backend_mac, stand.NODE_MAC)))
    assert verdict == "tx"
    assert out == frame(vip, client, transport(name, sport=80, dport=sport, flags="SA"), tags,
                        extra, 63, macs=(stand.NODE_MAC, stand.CLIENT_MAC))

    verdict, out = stand.send(frame(client, vip, transport(name, sport=sport, dport=80, flags="A"),
                                    tags, extra, payload=b"x" * 999))
    assert verdict == "tx"
    assert out == frame(source, backend,
                        transport(name, sport=nat_port, dport=8080, flags="A"), tags, extra, 63,
                        payload=b"x" * 999, macs=(stand.NODE_MAC, backend_mac))

    (counters,) = [entry for entry in stand.lbctl_json("backends", "list")
                   if entry["service"] == key]
    assert (counters["packets"], counters["reply_packets"], counters["flows"]) == (2, 1, 1)


def dumped(key):
    """What bpftool shows of a service's only backend: packets and bytes both ways, flows."""
    entries = json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{stand.PIN_DIR}/backend_stats").stdout)
    (values,) = [[cpu["value"] for cpu in entry["formatted"]["values"]] for entry in entries
                 if entry["formatted"]["values"][0]["value"]["service"] == key]
    return [sum(value[way][what] for value in values) for way in ("to_backend", "to_client")
            for what in ("packets", "bytes")] + [sum(value["flows"] for value in values)]


@pytest.mark.parametrize("backends", [0, 1, 2])
def test_table_has_one_head(service, backends):
    """And a line for each backend, whatever other services have."""
    if missing := features.no_iterators():
        pytest.skip(missing)
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080 + i) for i in range(backends)])
    lines = stand.run("cat", f"{stand.PIN_DIR}/counters").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["SERVICE"] + backends * [vip_text(4, 80, "tcp")]


def test_dump_follows_the_packets(service):
    """All of them, soon after the last one; also where packets come again after the dump was complete."""
    key = vip_text(4, 80, "tcp")
    service(key, [backend_text(4, 8080)])
    packet = frame(CLIENT, VIP, TCP(sport=4242, dport=80, flags="S"))
    sent, size = 0, len(packet) - 14
    for burst in (1, 50, 3):
        for _ in range(burst):
            assert stand.send(packet)[0] == "tx"
        sent += burst
        stand.wait_for(lambda: dumped(key) == [sent, size * sent, 0, 0, 1], 2, "bpftool's dump")
        time.sleep(0.1)
        assert dumped(key)[0] == sent
    (listed,) = [entry for entry in stand.lbctl_json("backends", "list") if entry["service"] == key]
    assert (listed["packets"], listed["bytes"], listed["flows"]) == (sent, size * sent, 1)


QUEUE = 1024            # of struct xlb_mirror, behind timer, armed, head, tail, copied, overflow and all
MIRROR = 40 + 4 * QUEUE


def test_dump_follows_where_the_queue_is_full(service):
    """More backends had packets within a millisecond than it has places: all are looked at."""
    def full(value):
        armed, head = struct.unpack_from("=II", value, 16)
        assert not armed
        return value[:24] + struct.pack("=IIII", (head - QUEUE) % 2**32, head, 0, 0) + value[40:]

    keys = [vip_text(4, port, "tcp") for port in (80, 81)]
    for key in keys:
        service(key, [backend_text(4, 8080)])
    time.sleep(0.1)
    for cpu in range(os.cpu_count()):
        stand.map_change("mirrors", cpu, MIRROR, full)
    for port, key in zip((80, 81), keys):
        assert stand.send(frame(CLIENT, VIP, TCP(sport=4242, dport=port, flags="S")))[0] == "tx"
        stand.wait_for(lambda: dumped(key)[0] == 1, 2, "bpftool's dump")


NOT_OURS = {
    "another address": frame(CLIENT, "203.0.113.99", TCP(dport=80)),
    "another port": frame(CLIENT, VIP, TCP(dport=81)),
    "another protocol": frame(CLIENT, VIP, UDP(dport=80)),
    "another address, IPv6": frame(CLIENT6, "2001:db8:99::99", TCP(dport=80)),
    "to the node itself": frame(CLIENT, stand.NODE, TCP(dport=22)),
    "from a backend, to no port of ours": frame(BACKEND, stand.NODE, TCP(sport=8080, dport=40000)),
    "from a backend, to a port without a flow": frame(BACKEND, stand.NODE,
                                                      TCP(sport=8080, dport=2000)),
    "ICMP echo to another address": frame(CLIENT, "203.0.113.99", ICMP()),
    "ICMP error to the VIP": frame(CLIENT, VIP, ICMP(type=3, code=4) /
                                   IP(src=VIP, dst=CLIENT) / TCP(sport=80)),
    "longer IPv6 chain than is walked": frame(
        CLIENT6, VIP6, TCP(dport=80), extra=[IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
                                             for _ in range(5)]),
    "three VLAN tags": frame(CLIENT, VIP, TCP(dport=80), [Dot1Q(), Dot1Q(), Dot1Q()]),
    "ARP": bytes(Ether(type=0x0806) / Raw(b"\0" * 46)),
    "cut inside the IP header": frame(CLIENT, VIP, TCP(dport=80))[:30],
    "cut inside the TCP header": frame(CLIENT, VIP, TCP(dport=80))[:45],
    "IPv4 header length under 20": bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / IP(src=CLIENT, dst=VIP, ihl=4, proto=6) /
                                         TCP(dport=80)),
    "Ethernet alone": bytes(Ether(type=0x0800)),
    "SCTP to the VIP": bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / IP(src=CLIENT, dst=VIP, proto=132) / Raw(b"\0" * 40)),
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_not_ours(service, what):
    """Leaves as it came, and counts nowhere."""
    for family in (4, 6):
        service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)])
    before = stand.drops()
    assert stand.send(NOT_OURS[what]) == ("pass", NOT_OURS[what])
    assert stand.drops() == before
    assert all(entry["packets"] == 0 for entry in stand.lbctl_json("services", "list"))


def test_echo_is_answered_for_addresses_of_services(service):
    """By xlb itself, as long as a service has the address."""
    ping = frame(CLIENT, VIP, ICMP(id=7, seq=9))
    key = vip_text(4, 80, "tcp")
    assert stand.send(ping) == ("pass", ping)
    service(key, [backend_text(4, 8080)])
    verdict, out = stand.send(ping)
    assert verdict == "tx"
    answer = Ether(out)
    assert (answer[IP].src, answer[IP].dst) == (VIP, CLIENT)
    assert (answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == (0, 7, 9)
    stand.lbctl("services", "del", key)
    assert stand.send(ping) == ("pass", ping)


REFUSALS = list(itertools.product(("empty", "weight 0", "draining"), NETWORKS, LINKS))


def refuse_how(family, name, how):
    key = vip_text(family, 80, name)
    if how != "empty":
        stand.lbctl("backends", "add", key, backend_text(family, 8080), "--weight",
                    "0" if how == "weight 0" else "1")
    if how == "draining":
        stand.lbctl("backends", "drain", key, backend_text(family, 8080))


@pytest.mark.parametrize("how,net,link", REFUSALS, ids=["-".join(row) for row in REFUSALS])
@pytest.mark.parametrize("flags,sequence,acknowledgment,expected", [
    ("S", 1000, 0, dict(flags="RA", seq=0, ack=1013)),
    ("SA", 1000, 77, dict(flags="R", seq=77, ack=0)),
    ("A", 1000, 77, dict(flags="R", seq=77, ack=0)),
    ("FA", 1000, 77, dict(flags="R", seq=77, ack=0)),
    ("F", 1000, 0, dict(flags="RA", seq=0, ack=1013)),
])
def test_refused_tcp(service, how, net, link, flags, sequence, acknowledgment, expected):
    """Nobody takes it: a RST that the client must accept (RFC 9293, 3.5.2), 12 bytes of payload counted."""
    family, extra = NETWORKS[net]
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    key = service(vip_text(family, 80, "tcp"))
    refuse_how(family, "tcp", how)
    sport = next(PORTS)
    verdict, out = stand.send(frame(client, vip, TCP(sport=sport, dport=80, flags=flags,
                                                     seq=sequence, ack=acknowledgment),
                                    LINKS[link], extra))
    answer = TCP(sport=80, dport=sport, window=0, **expected)
    packet = Ether(src=stand.NODE_MAC, dst=stand.CLIENT_MAC)
    for tag in LINKS[link]:
        packet /= tag.copy()
    packet /= (IP(src=vip, dst=client, ttl=64, id=0, flags="DF") if family == 4 else
               IPv6(src=vip, dst=client, hlim=64))
    assert verdict == "tx"
    assert out == bytes(packet / answer)
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == key]
    assert entry["refused"] == 1 and entry["packets"] == 0


@pytest.mark.parametrize("how,net,link", REFUSALS, ids=["-".join(row) for row in REFUSALS])
def test_refused_udp(service, how, net, link):
    """ICMP port unreachable from the VIP, quoting the packet."""
    family, extra = NETWORKS[net]
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 80, "udp"))
    refuse_how(family, "udp", how)
    sent = frame(client, vip, UDP(sport=next(PORTS), dport=80), LINKS[link], extra)
    verdict, out = stand.send(sent)
    quote = sent[14 + 4 * len(LINKS[link]):]
    packet = Ether(src=stand.NODE_MAC, dst=stand.CLIENT_MAC)
    for tag in LINKS[link]:
        packet /= tag.copy()
    if family == 4:
        packet /= IP(src=vip, dst=client, ttl=64, id=0, flags="DF") / ICMP(type=3, code=3)
    else:
        packet /= IPv6(src=vip, dst=client, hlim=64) / ICMPv6DestUnreach(code=4)
    assert verdict == "tx"
    assert out == bytes(packet / Raw(quote))


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
def test_udp_without_checksum(service, family, forward):
    """A UDP checksum of 0 stays 0."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 53, "udp"), [backend_text(family, 53)], forward=forward)
    verdict, out = stand.send(frame(client, vip, UDP(sport=next(PORTS), dport=53, chksum=0)))
    assert verdict == "tx"
    assert Ether(out)[UDP].chksum == 0


@pytest.mark.parametrize("family", (4, 6))
def test_udp_checksum_is_never_computed_to_zero(service, family):
    """Payloads that bring the sum to 0 leave as ffff: every 16-bit payload is tried that can, in steps."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 53, "udp"), [backend_text(family, 53)], forward="dnat")
    sport = next(PORTS)
    _, out = stand.send(frame(client, vip, UDP(sport=sport, dport=53), payload=b"\0\0"))
    rest = Ether(out)[UDP].chksum
    sent = frame(client, vip, UDP(sport=sport, dport=53), payload=rest.to_bytes(2, "big"))
    _, out = stand.send(sent)
    assert Ether(out)[UDP].chksum == 0xffff


@pytest.mark.parametrize("family", (4, 6))
def test_round_robin(service, family):
    """New flows go to one backend after the other; known ones stay."""
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080, i) for i in range(3)],
            scheduler="rr")

    def sent_to(sport, flags):
        out = Ether(stand.send(frame(client, vip, TCP(sport=sport, dport=80, flags=flags)))[1])
        return out[IP if family == 4 else IPv6].dst

    sports = [next(PORTS) for _ in range(9)]
    order = [sent_to(sport, "S") for sport in sports]
    assert order == order[:3] * 3 and len(set(order)) == 3
    assert [sent_to(sport, "A") for sport in sports] == order


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "ipip"))
def test_round_robin_across_cpus(service, family, forward):
    """One rotation for all CPUs, however new flows are spread over them."""
    if len(cpus := sorted(os.sched_getaffinity(0))) < 2:
        pytest.skip("needs two CPUs")
    if stand.ON_THE_WIRE:
        pytest.skip("on the wire the kernel chooses the CPU")
    client, vip = network(family, CLIENT, CLIENT6), network(family, VIP, VIP6)
    service(vip_text(family, 80, "tcp"), [backend_text(family, 80, i) for i in range(3)], forward=forward, scheduler="rr")
    order = []
    try:
        for cpu in [cpus[0], cpus[1]] * 6 + [cpus[0]] * 4 + [cpus[1]] * 5:
            os.sched_setaffinity(0, {cpu})
            out = Ether(stand.send(frame(client, vip, TCP(sport=next(PORTS), dport=80, flags="S")))[1])
            order.append(out[IP if family == 4 else IPv6].dst)
    finally:
        os.sched_setaffinity(0, cpus)
    assert order == order[:3] * 7 and len(set(order)) == 3


def test_weights(service):
    """rr gives new flows in proportion to weights."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080) + " --weight 3",
                                     backend_text(4, 8080, 1) + " --weight 1"], scheduler="rr")
    chosen = [Ether(stand.send(frame(CLIENT, VIP, TCP(sport=next(PORTS), dport=80, flags="S")))[1])
              [IP].dst for _ in range(8)]
    assert sorted(chosen.count(backend) for backend in set(chosen)) == [2, 6]


def begin(sport, flags="S", dport=80):
    return stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=dport, flags=flags)))


def reply(out, flags):
    sent = Ether(out)
    return stand.send(frame(sent[IP].dst, sent[IP].src,
                            TCP(sport=sent[TCP].dport, dport=sent[TCP].sport, flags=flags),
                            macs=(sent.dst, sent.src)))


def test_flow_survives_scaling(service):
    """What began on a backend stays there while others come and go, and when it drains."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    sport = next(PORTS)
    _, first = begin(sport)
    for change in (("add", backend_text(4, 8080, 1)), ("add", backend_text(4, 8080, 2)),
                   ("drain", backend_text(4, 8080)), ("del", backend_text(4, 8080, 1))):
        stand.lbctl("backends", change[0], key, change[1])
        verdict, out = begin(sport, "A")
        assert verdict == "tx"
        assert Ether(out)[IP].dst == Ether(first)[IP].dst
        assert Ether(out)[TCP].sport == Ether(first)[TCP].sport


def test_flow_of_removed_backend_is_reset(service):
    """Once its backend is removed a connection is told so; a new one begins elsewhere."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080), backend_text(4, 8080, 1)],
                  scheduler="rr")
    sport = next(PORTS)
    _, first = begin(sport)
    gone = Ether(first)[IP].dst
    stand.lbctl("backends", "del", key, f"{gone}:8080")
    verdict, out = begin(sport, "A")
    assert verdict == "tx" and Ether(out)[IP].src == VIP and "R" in str(Ether(out)[TCP].flags)
    verdict, out = begin(sport, "S")
    assert verdict == "tx" and Ether(out)[IP].dst not in (gone, CLIENT)


def test_a_syn_reopens_a_closed_flow(service):
    """After FIN both ways the same tuple begins a new flow: round robin moves on."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080), backend_text(4, 8080, 1)],
            scheduler="rr")
    sport = next(PORTS)
    _, first = begin(sport)
    reply(first, "SA")
    begin(sport, "FA")
    reply(first, "FA")
    verdict, again = begin(sport)
    assert verdict == "tx"
    assert Ether(again)[IP].dst != Ether(first)[IP].dst


def test_a_syn_on_an_open_flow_changes_nothing(service):
    """A duplicate or forged SYN goes where the flow goes."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080), backend_text(4, 8080, 1)],
            scheduler="rr")
    sport = next(PORTS)
    _, first = begin(sport)
    reply(first, "SA")
    _, again = begin(sport)
    assert Ether(again)[IP].dst == Ether(first)[IP].dst
    assert Ether(again)[TCP].sport == Ether(first)[TCP].sport


def test_one_endpoint_behind_two_vips(service):
    """Each client hears from the VIP that it asked."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    service(vip_text(4, 81, "tcp"), [backend_text(4, 8080)])
    for dport in (80, 81):
        sport = next(PORTS)
        _, out = begin(sport, dport=dport)
        _, back = reply(out, "SA")
        assert (Ether(back)[IP].src, Ether(back)[TCP].sport) == (VIP, dport)


def test_nat_ports_are_in_range_and_differ(service):
    """Towards one endpoint a port is used once."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    used = [Ether(begin(next(PORTS))[1])[TCP].sport for _ in range(200)]
    assert len(set(used)) == len(used)
    low, high = map(int, open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii")
                    .read().split())
    assert all(1024 <= port < low or high < port for port in used)


MALFORMED = {
    "IP length over the frame": frame(CLIENT, VIP, TCP(dport=80, flags="S"))[:60],
    "IP length under the headers": bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / IP(src=CLIENT, dst=VIP, len=30, proto=6) /
                                         TCP(dport=80, flags="S")),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed(service, what):
    """To a VIP it is dropped, by name; to anybody else it is none of ours."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    before = stand.drops()["XLB_DROP_MALFORMED"]
    assert stand.send(MALFORMED[what])[0] == "drop"
    assert stand.drops()["XLB_DROP_MALFORMED"] == before + 1
    (entry,) = [entry for entry in stand.lbctl_json("services", "list") if entry["service"] == key]
    assert entry["dropped"] == 1
    stand.lbctl("services", "del", key)
    assert stand.send(MALFORMED[what])[0] == "pass"


def test_reset_without_flow_is_dropped(service):
    """Nothing may answer a RST."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    before = stand.drops()["XLB_DROP_NO_FLOW"]
    assert begin(next(PORTS), "R")[0] == "drop"
    assert stand.drops()["XLB_DROP_NO_FLOW"] == before + 1
