# SPDX-License-Identifier: GPL-2.0
"""Direct server return: l2, ipip and gue, in all families, with and without flows; and what services can be told besides."""

import collections
import ipaddress
import itertools
import json
import struct
import sys

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import (BACKEND, BACKEND6, CLIENT, CLIENT6, LINKS, PORTS, QUOTED, VIP, VIP6, backend_mac, backend_text, frame,
                    network, transport, vip_text)
from test_packets import NETWORKS
from world import PIN_DIR

TO_CLIENT = {"src": stand.NODE_MAC, "dst": stand.CLIENT_MAC}
FROM_ROUTER = {"src": stand.CLIENT_MAC, "dst": stand.NODE_MAC}
MODES = [("l2", 4, 4), ("l2", 6, 6), *itertools.product(("ipip", "gue"), (4, 6), (4, 6))]
MODE_NAMES = [f"{forward}-{inner}-in-{outer}" for forward, inner, outer in MODES]


def addresses(family):
    """Client and VIP."""
    return network(family, (CLIENT, VIP), (CLIENT6, VIP6))


def outer(out, forward, inner, family, tos=0, chksum=0):
    """The outer headers that a frame is to have; what follows the flow's hash is taken from the frame itself."""
    protocol = 17 if forward == "gue" else network(inner, 4, 41)
    seen = Ether(out)
    if family == 4:
        headers = IP(src=stand.NODE, dst=BACKEND, ttl=64, id=0, flags="DF", tos=tos, proto=protocol)
    else:
        headers = IPv6(src=stand.NODE6, dst=BACKEND6, hlim=64, tc=tos, fl=seen[IPv6].fl, nh=protocol)
    if forward == "gue":
        assert seen[UDP].sport >= 32768
        headers /= UDP(sport=seen[UDP].sport, dport=6080, chksum=chksum)
    return headers


def tagged(tags, inner, **macs):
    packet = Ether(**macs)
    for tag in tags:
        packet /= tag.copy()
    return packet / inner


def expected(out, sent, forward, inner, family, tags=(), tos=0, chksum=0):
    """The frame that leaves: the inner packet with a hop less, in its outer headers."""
    start = 14 + 4 * len(tags)
    packet = (IP if inner == 4 else IPv6)(sent[start:])
    if inner == 4:
        packet.ttl -= 1
        del packet.chksum
    else:
        packet.hlim -= 1
    macs = {"src": stand.NODE_MAC, "dst": backend_mac(network(family, BACKEND, BACKEND6))}
    if forward == "l2":
        return bytes(tagged(tags, packet, **macs))
    return bytes(tagged(tags, outer(out, forward, inner, family, tos, chksum) / Raw(bytes(packet)), **macs))


NETS = [(*mode, net) for mode in MODES for net in NETWORKS if NETWORKS[net][0] == mode[1]]


@pytest.mark.parametrize("forward,inner,family,net", NETS)
@pytest.mark.parametrize("scheduler", ("maglev", "source", "rr", "lc", "random"))
@pytest.mark.parametrize("name", ("tcp", "udp"))
@pytest.mark.parametrize("link", LINKS)
def test_mode(service, forward, inner, family, scheduler, name, link, net):
    """The first packet and a later one arrive as they were sent, with a hop less, in the right headers."""
    _, extra = NETWORKS[net]
    client, vip = addresses(inner)
    key = service(vip_text(inner, 80, name), [backend_text(family, 80)], forward=forward, scheduler=scheduler)
    sport = next(PORTS)
    for flags in ("S", "A"):
        sent = frame(client, vip, transport(name, sport=sport, dport=80, flags=flags), LINKS[link], extra)
        verdict, out = stand.send(sent)
        assert verdict == "tx"
        assert out == expected(out, sent, forward, inner, family, LINKS[link])
    (counters,) = [entry for entry in stand.lbctl_json("backends", "list") if entry["service"] == key]
    assert counters["packets"] == 2 and counters["bytes"] == 2 * (len(sent) - 14 - 4 * len(LINKS[link]))


@pytest.mark.parametrize("forward,inner,family", [mode for mode in MODES if mode[0] != "l2"],
                         ids=[name for name in MODE_NAMES if name[:2] != "l2"])
@pytest.mark.parametrize("tos", (0x01, 0x02, 0x03, 0xb8, 0xff))
def test_traffic_class_is_copied(service, forward, inner, family, tos):
    """DSCP and ECN (RFC 6040, normal mode)."""
    client, vip = addresses(inner)
    service(vip_text(inner, 80, "udp"), [backend_text(family, 80)], forward=forward)
    packet = (IP(src=client, dst=vip, tos=tos) if inner == 4 else IPv6(src=client, dst=vip, tc=tos))
    sent = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / packet / UDP(sport=next(PORTS), dport=80) / Raw(b"x"))
    verdict, out = stand.send(sent)
    assert verdict == "tx"
    assert out == expected(out, sent, forward, inner, family, tos=tos)


@pytest.mark.parametrize("inner,family", itertools.product((4, 6), (4, 6)))
def test_gue_ports_follow_the_flow(service, inner, family):
    """One port for all packets of a flow, and many for many flows."""
    client, vip = addresses(inner)
    service(vip_text(inner, 80, "udp"), [backend_text(family, 80)], forward="gue", gue_port=7777)
    seen = collections.defaultdict(set)
    for sport in list(range(2000, 2040)) * 2:
        verdict, out = stand.send(frame(client, vip, UDP(sport=sport, dport=80)))
        assert verdict == "tx" and Ether(out)[UDP].dport == 7777
        seen[sport].add(Ether(out)[UDP].sport)
    assert all(len(ports) == 1 for ports in seen.values())
    assert len(set.union(*seen.values())) > 35


def checksummed(service, inner, name):
    """A service whose outer UDP headers get checksums, and client and VIP."""
    service(vip_text(inner, 80, name), [backend_text(6, 80)], forward="gue", gue_checksum="on")
    return addresses(inner)


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("name", ("tcp", "udp"))
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("payload", (b"", b"odd", bytes(1200), b"\xff" * 1200), ids=len)
def test_gue_checksum(service, net, name, link, payload):
    """With --gue-checksum on the outer UDP header has the checksum of all that follows, or none where none inside covers that."""
    inner, extra = NETWORKS[net]
    client, vip = checksummed(service, inner, name)
    sent = frame(client, vip, transport(name, sport=next(PORTS), dport=80, flags="S"), LINKS[link], extra, payload=payload)
    verdict, out = stand.send(sent)
    assert verdict == "tx"
    whole = expected(out, sent, "gue", inner, 6, LINKS[link], chksum=0 if inner == 6 and extra else None)
    assert out == whole


UNCOVERED = {
    "udp without a checksum": (UDP(sport=4711, dport=80, chksum=0) / Raw(b"x"), {}),
    "udp shorter than its packet": (UDP(sport=4711, dport=80, len=9) / Raw(b"xyz"), {}),
    "first fragment": (UDP(sport=4711, dport=80, len=2000) / Raw(bytes(64)), {"flags": "MF"}),
}


@pytest.mark.parametrize("what", UNCOVERED)
def test_gue_checksum_that_is_not_known(service, what):
    transport_header, fields = UNCOVERED[what]
    client, vip = checksummed(service, 4, "udp")
    sent = frame(client, vip, transport_header, **fields)
    verdict, out = stand.send(sent)
    assert verdict == "tx" and out == expected(out, sent, "gue", 4, 6)


@pytest.mark.parametrize("inner", (4, 6))
def test_gue_checksum_of_an_error(service, inner):
    """An ICMP error about what the backend had answered has a checksum of its own."""
    client, vip = checksummed(service, inner, "tcp")
    quote = bytes(network(inner, IP, IPv6)(src=vip, dst=client) / TCP(sport=80, dport=next(PORTS)) / Raw(b"0123456789"))
    error = network(inner, ICMP(type=3, code=4, nexthopmtu=1280), ICMPv6PacketTooBig(mtu=1280))
    sent = frame(client, vip, error, payload=quote)
    verdict, out = stand.send(sent)
    assert verdict == "tx" and out == expected(out, sent, "gue", inner, 6, chksum=None)


def test_gue_checksum_changes_live(service):
    client, vip = checksummed(service, 4, "udp")
    for switch, chksum in (("off", 0), ("on", None)):
        stand.lbctl("services", "set", vip_text(4, 80, "udp"), "--gue-checksum", switch)
        sent = frame(client, vip, UDP(sport=4711, dport=80))
        verdict, out = stand.send(sent)
        assert verdict == "tx" and out == expected(out, sent, "gue", 4, 6, chksum=chksum)


def test_outer_source_that_follows_the_flow(service):
    """--encap-source with a prefix: its other bits differ between flows, and the header's checksum is right."""
    service(vip_text(4, 80, "udp"), [backend_text(4, 80)], forward="ipip", encap_source="172.16.0.0/16")
    sources = set()
    for sport in range(2000, 2040):
        verdict, out = stand.send(frame(CLIENT, VIP, UDP(sport=sport, dport=80)))
        header = IP(out[14:34])
        assert verdict == "tx" and header.src.startswith("172.16.")
        checksum, header.chksum = header.chksum, None
        assert IP(bytes(header)).chksum == checksum
        sources.add(header.src)
    assert len(sources) > 35


@pytest.mark.parametrize("forward,inner,family", [mode for mode in MODES if mode[0] != "l2"],
                         ids=[name for name in MODE_NAMES if name[:2] != "l2"])
@pytest.mark.parametrize("name", ("tcp", "udp"))
def test_too_big_for_the_tunnel(service, forward, inner, family, name):
    """What fits only without the outer header is answered with the MTU that is left; what fits, goes."""
    client, vip = addresses(inner)
    service(vip_text(inner, 80, name), [backend_text(family, 80)], forward=forward)
    added = network(family, 20, 40) + (8 if forward == "gue" else 0)
    headers = network(inner, 20, 40) + (20 if name == "tcp" else 8)
    layer = transport(name, sport=next(PORTS), dport=80, flags="S")
    sizes = {"fits": 1500 - added - headers, "does not": 1500 - added - headers + 1}
    sent = frame(client, vip, layer, payload=b"x" * sizes["fits"], flags="DF")
    verdict, out = stand.send(sent)
    assert verdict == "tx" and out == expected(out, sent, forward, inner, family)
    sent = frame(client, vip, layer, payload=b"x" * sizes["does not"], flags="DF")
    verdict, out = stand.send(sent)
    if inner == 4:
        answer = IP(src=vip, dst=client, ttl=64, id=0, flags="DF") / ICMP(type=3, code=4, nexthopmtu=1500 - added)
    else:
        answer = IPv6(src=vip, dst=client, hlim=64) / ICMPv6PacketTooBig(mtu=1500 - added)
    assert verdict == "tx"
    assert out == bytes(Ether(**TO_CLIENT) / answer / Raw(sent[14:14 + QUOTED[inner]]))


@pytest.mark.parametrize("inner", (4, 6))
def test_routers_narrow_a_tunnel(service, inner):
    """An ICMP error about our outer packet is believed from the next tick on. An IPv6 sender is never told less than 1280, which it
    need not believe: what is no longer goes on, and is fragmented in its outer header."""
    client, vip = addresses(inner)
    # A backend of its own: what was learned of a path stays for ten minutes.
    service(vip_text(inner, 80, "udp"), [backend_text(4, 80, network(inner, 3, 4))], forward="ipip")
    sent = frame(client, vip, UDP(sport=next(PORTS), dport=80), payload=b"x" * 1300, flags="DF")
    verdict, out = stand.send(sent)
    assert verdict == "tx" and out[14 + 9] in (4, 41)
    quote = out[14:14 + 28]
    error = bytes(Ether(**FROM_ROUTER) / IP(src="10.200.9.9", dst=stand.NODE) / ICMP(type=3, code=4, nexthopmtu=1280) / Raw(quote))
    assert stand.send(error) == ("pass", error)

    def narrowed():
        _, answer = stand.send(sent)
        return Ether(answer).dst == stand.CLIENT_MAC and answer

    answer = stand.wait_for(narrowed, 5, "the path's MTU")
    mtu = Ether(answer)[ICMP].nexthopmtu if inner == 4 else Ether(answer)[ICMPv6PacketTooBig].mtu
    assert mtu == network(inner, 1280 - 20, 1280)
    if inner == 6 and not stand.ON_THE_WIRE:
        verdict, out = stand.send(frame(client, vip, UDP(sport=next(PORTS), dport=80), payload=b"x" * (1280 - 48)))
        assert verdict == "pass" and int.from_bytes(out[10:12], sys.byteorder) == 1280  # struct xlb_note: to be fragmented to that
        assert len(out) == 32 + 14 + 20 + 1280
    run_after = stand.send(frame(client, vip, UDP(sport=next(PORTS), dport=80), payload=b"x" * 1100))
    assert run_after[0] == "tx" and run_after[1][14 + 9] in (4, 41)


def test_an_mtu_that_no_packet_has(service):
    """An ICMPv6 error says 32 bits of it; more than 16 say nothing, also where the lower ones would be a narrow way."""
    service(vip_text(6, 80, "udp"), [backend_text(6, 80, 4)], forward="ipip")
    verdict, out = stand.send(frame(CLIENT6, VIP6, UDP(sport=next(PORTS), dport=80), payload=b"x" * 1300))
    assert verdict == "tx"

    def told(mtu):
        error = bytes(Ether(**FROM_ROUTER) / IPv6(src="2001:db8:200::99", dst=stand.NODE6) / ICMPv6PacketTooBig(mtu=mtu) / Raw(out[14:14 + 200]))
        assert stand.send(error) == ("pass", error)
        return list(stand.BACKENDS6)[4] in paths()

    assert not told(0x10000 + 1300)
    assert told(1400)


def paths():
    """Addresses to which a narrow way is known."""
    dump = json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{stand.PIN_DIR}/paths").stdout)
    return [str(ipaddress.ip_address(bytes(int(byte, 16) for byte in entry["key"]))) for entry in dump]


def choices(count, name="tcp", flags="S", start=3000):
    """{source port: backend} of that many flows."""
    out = {}
    for sport in range(start, start + count):
        verdict, packet = stand.send(frame(CLIENT, VIP, transport(name, sport=sport, dport=80, flags=flags)))
        assert verdict == "tx"
        out[sport] = IP(packet[14:34]).dst
    return out


@pytest.mark.parametrize("name", ("tcp", "udp"))
@pytest.mark.parametrize("before,after", [((0,), (0, 1)), ((0, 1), (0, 1, 2)), ((0,), (1,))])
def test_stateless_flows_survive_scaling(service, name, before, after):
    """Flows without an entry anywhere stay where they are when backends come; new TCP flows use all of them."""
    key = service(vip_text(4, 80, name), [backend_text(4, 80, i) for i in before], forward="ipip")
    old = choices(60, name)
    for i in set(after) - set(before):
        stand.lbctl("backends", "add", key, backend_text(4, 80, i))
    for i in set(before) - set(after):
        stand.lbctl("backends", "drain", key, backend_text(4, 80, i))
    assert choices(60, name, "A") == old
    if name == "tcp":
        new = choices(200, name, start=9000)
        assert set(new.values()) == {list(stand.BACKENDS)[i] for i in after}
        assert choices(200, name, "A", start=9000) == new
        assert choices(60, name, "A") == old


def test_stateless_flows_survive_one_change_after_the_other(service):
    """Each flow stays where it began, whatever came in between."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, 0)], forward="ipip")
    kept = choices(40)
    for step, change in enumerate((("add", 1), ("add", 2), ("drain", 0), ("set", 0))):
        verb, i = change
        stand.lbctl("backends", verb, key, backend_text(4, 80, i), *(["--weight", "1"] if verb == "set" else []))
        kept |= choices(40, start=4000 + 100 * step)
        assert {port: choices(1, "tcp", "A", port)[port] for port in kept} == kept


def test_stateless_flows_of_a_removed_backend_move(service):
    """To a backend that is there: it may know the connection no better, and says so itself."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(2)], forward="ipip")
    old = choices(40)
    stand.lbctl("backends", "del", key, backend_text(4, 80, 0))
    gone, left = list(stand.BACKENDS)[:2]
    assert choices(40, "tcp", "A") == {port: left for port in old}
    assert gone in old.values()


def test_changing_the_mode_keeps_flows(service):
    """What began with nat goes on with nat, what began in a tunnel stays in it."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80)], forward="nat")
    port = next(PORTS)

    def protocol_of(sport, flags):
        verdict, out = stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags=flags)))
        assert verdict == "tx"
        return IP(out[14:34]).proto

    assert protocol_of(port, "S") == 6
    stand.lbctl("services", "set", key, "--forward", "ipip")
    tunnelled = next(PORTS)
    assert protocol_of(tunnelled, "S") == 4
    assert protocol_of(port, "A") == 6
    stand.lbctl("services", "set", key, "--forward", "nat")
    assert protocol_of(tunnelled, "A") == 4
    assert protocol_of(next(PORTS), "S") == 6
    assert protocol_of(port, "A") == 6


def test_source_binds_a_client_to_a_backend(service):
    """All of a client's connections go to one backend, those of many clients to all."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(3)], forward="ipip", scheduler="source")
    assert len(set(choices(30).values())) == 1
    others = set()
    for i in range(1, 60):
        _, out = stand.send(frame(f"198.51.100.{i}", VIP, TCP(sport=1, dport=80, flags="S")))
        others.add(IP(out[14:34]).dst)
    assert len(others) == 3


@pytest.mark.parametrize("forward", ("nat", "ipip"))
@pytest.mark.parametrize("scheduler", ("maglev", "random", "lc", "rr", "source"))
def test_weights_of_all_schedulers(service, forward, scheduler):
    """Weight 0 takes no new flows, three times the weight takes about three times as many."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80, 0) + " --weight 3", backend_text(4, 80, 1) + " --weight 1",
                                     backend_text(4, 80, 2) + " --weight 0"], forward=forward, scheduler=scheduler)
    if scheduler == "source":
        count = collections.Counter(
            IP(stand.send(frame(f"198.51.{i // 200}.{i % 200 + 1}", VIP, TCP(sport=1, dport=80, flags="S")))[1][14:34]).dst
            for i in range(400))
    else:
        count = collections.Counter(choices(400).values())
    heavy, light, none = (count[address] for address in list(stand.BACKENDS)[:3])
    assert none == 0 and heavy + light == 400
    assert 240 < heavy < 350


def test_least_connections_prefer_who_has_fewer(service):
    """A backend whose flows have ended takes more of the new ones."""
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(2)], forward="dnat", scheduler="lc")
    first = choices(200)
    busy = list(stand.BACKENDS)[0]
    for port, backend in first.items():
        if backend != busy:
            assert stand.send(frame(backend, CLIENT, TCP(sport=80, dport=port, flags="RA"),
                                    macs=(backend_mac(backend), stand.NODE_MAC)))[0] == "tx"
    count = collections.Counter(choices(60, start=9000).values())
    assert count[busy] < 25


@pytest.mark.parametrize("forward", ("nat", "dnat", "ipip"))
@pytest.mark.parametrize("scheduler", ("maglev", "rr", "random", "lc", "source"))
def test_affinity(service, forward, scheduler):
    """A client stays with its backend, until that takes no new flows."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(3)], forward=forward,
                  scheduler=scheduler, affinity=100)
    first = set(choices(30).values())
    assert len(first) == 1
    (bound,) = first
    others = {IP(stand.send(frame(f"198.51.100.{i}", VIP, TCP(sport=1, dport=80, flags="S")))[1][14:34]).dst
              for i in range(1, 60)}
    assert len(others) == 3
    stand.lbctl("backends", "drain", key, f"{bound}:80")
    moved = set(choices(30, start=9000).values())
    assert len(moved) == 1 and moved != {bound}


def test_affinity_outlasts_another_outer_source(service):
    """Backends go on under other ids, and clients are bound to them as before."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(4)], forward="ipip", scheduler="rr", affinity=1000)
    (bound,) = set(choices(5).values())
    for source in ("10.9.0.1", "10.9.0.2", "auto"):
        stand.lbctl("services", "set", key, "--encap-source", source)
        assert set(choices(5, start=9000).values()) == {bound}


def affinity_change(change):
    """Makes a function change the one entry of `affinity` (backend, tick); what it was."""
    (entry,) = json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/affinity").stdout)
    key = bytes(int(byte, 16) for byte in entry["key"])
    before = []

    def apply(value):
        before.append(struct.unpack("=II", value))
        return struct.pack("=II", *change(*before[0]))

    stand.map_change("affinity", key, 8, apply)
    return before[0]


def affinity_clear():
    for entry in json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/affinity").stdout):
        stand.run("bpftool", "map", "delete", "pinned", f"{PIN_DIR}/affinity", "key", *entry["key"])


def test_affinity_lapses_and_slides(service):
    """From the last new flow on, not from the first; rr shows who is free to choose."""
    affinity_clear()
    service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(2)], scheduler="rr", affinity=100)
    (first,) = set(choices(3).values())
    for start in (7000, 7100):      # 120 s in all
        affinity_change(lambda backend, seen: (backend, seen - 60))
        assert set(choices(1, start=start).values()) == {first}
    # Another CPU has heard of the client since this one looked at the time.
    for start in (7200, 7300):
        affinity_change(lambda backend, seen: (backend, seen + 1))
        assert set(choices(1, start=start).values()) == {first}
    affinity_change(lambda backend, seen: (backend, seen - 150))
    (second,) = set(choices(3, start=8000).values())
    assert second != first


def test_affinity_to_who_is_gone(service):
    """A backend that was deleted, and an id that is another service's by now."""
    affinity_clear()
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(2)], scheduler="rr", affinity=100)
    (bound,) = set(choices(3).values())
    stand.lbctl("backends", "del", key, f"{bound}:80")
    (other,) = set(choices(3, start=7000).values())
    assert other != bound
    stranger, _ = affinity_change(lambda backend, seen: (backend, seen))
    affinity_clear()
    service(vip_text(4, 81, "tcp"), [backend_text(4, 81, 3)], scheduler="rr", affinity=100)
    stand.send(frame(CLIENT, VIP, TCP(sport=7100, dport=81, flags="S")))
    assert affinity_change(lambda backend, seen: (stranger, seen))[0] != stranger
    verdict, out = stand.send(frame(CLIENT, VIP, TCP(sport=7101, dport=81, flags="S")))
    assert verdict == "tx" and IP(out[14:34]).dst == list(stand.BACKENDS)[3]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "ipip"))
def test_source_ranges(service, family, forward):
    """Who is in none of the ranges is dropped by name."""
    ranges, inside, outside = network(family, ("192.0.2.0/25,198.51.100.7/32", ["192.0.2.1", "198.51.100.7"],
                                               ["192.0.2.129", "198.51.100.8"]),
                                      ("2001:db8:1::/64", ["2001:db8:1::1"], ["2001:db8:2::1"]))
    service(vip_text(family, 80, "tcp"), [backend_text(family, 80)], forward=forward, source_ranges=ranges)
    before = stand.drops()["XLB_DROP_SOURCE_RANGE"]
    vip = network(family, VIP, VIP6)
    for clients, verdict in ((inside, "tx"), (outside, "drop")):
        for client in clients:
            assert stand.send(frame(client, vip, TCP(sport=next(PORTS), dport=80, flags="S")))[0] == verdict
    assert stand.drops()["XLB_DROP_SOURCE_RANGE"] == before + len(outside)


MSS = [
    ([("MSS", 1460)], [("MSS", 1200)]), ([("MSS", 1200)], [("MSS", 1200)]), ([("MSS", 900)], [("MSS", 900)]),
    ([("NOP", None), ("MSS", 1460)], [("NOP", None), ("MSS", 1200)]),
    ([("WScale", 7), ("MSS", 9000), ("SAckOK", b"")], [("WScale", 7), ("MSS", 1200), ("SAckOK", b"")]),
    ([("Timestamp", (1, 2)), ("NOP", None), ("MSS", 1460)], [("Timestamp", (1, 2)), ("NOP", None), ("MSS", 1200)]),
    ([("WScale", 7)], [("WScale", 7)]), ([], []),
]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("options,wanted", MSS)
def test_mss_of_a_syn(service, family, options, wanted):
    """Lowered where it is larger, wherever it stands, with a right checksum; both ways; nothing else is touched."""
    client, vip = addresses(family)
    node, backend = network(family, (stand.NODE, BACKEND), (stand.NODE6, BACKEND6))
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)], mss=1200)
    sport = next(PORTS)
    verdict, out = stand.send(frame(client, vip, TCP(sport=sport, dport=80, flags="S", options=options)))
    port = Ether(out)[TCP].sport
    assert verdict == "tx"
    assert out == frame(node, backend, TCP(sport=port, dport=8080, flags="S", options=wanted), ttl=63,
                        macs=(stand.NODE_MAC, backend_mac(backend)))
    verdict, out = stand.send(frame(backend, node, TCP(sport=8080, dport=port, flags="SA", options=options),
                                    macs=(backend_mac(backend), stand.NODE_MAC)))
    assert verdict == "tx"
    assert out == frame(vip, client, TCP(sport=80, dport=sport, flags="SA", options=wanted), ttl=63,
                        macs=(stand.NODE_MAC, stand.CLIENT_MAC))
    sent = TCP(sport=sport, dport=80, flags="A", options=options)
    verdict, out = stand.send(frame(client, vip, sent))
    assert Ether(out)[TCP].options == sent.__class__(bytes(sent)).options


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("ipip", "gue"))
def test_a_tunnel_by_the_kernel_keeps_the_link(service, family, forward):
    """To a neighbour that is not known yet the kernel sends it: the frame that it gets is still addressed to this node."""
    stand.needs_the_note()
    address = network(family, "10.200.7.7:80", "[2001:db8:200::7777]:80")
    service(vip_text(4, 80, "udp"), [address], forward=forward)
    verdict, out = stand.send(frame(CLIENT, VIP, UDP(sport=next(PORTS), dport=80)))
    assert verdict == "pass"
    link = Ether(out[32:])  # behind the note for tc (struct xlb_note)
    assert (link.dst, link.src) == (stand.NODE_MAC, stand.CLIENT_MAC)
    assert link.type == network(family, 0x0800, 0x86dd)
