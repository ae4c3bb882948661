# SPDX-License-Identifier: GPL-2.0
"""How many flows a backend has, by which lc chooses: those count that are there, however they came to be or end."""

import struct

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

import stand
from frames import CLIENT, CLIENT6, PORTS, VIP, VIP6, backend_mac, backend_text, frame, network, transport, vip_text
from tables import CLOSING, ESTABLISHED, client_port, config, flow_state, mapped, table_of_flows

BACKEND_BYTES, STATE, ADDRESS, LOAD = 128, 4, 72, 120     # struct xlb_backend
ACTIVE = 1


def loads():
    """{address: flows} of the backends that there are."""
    with mapped("backends", config("backends"), BACKEND_BYTES) as memory:
        entries = [memory[at:at + BACKEND_BYTES] for at in range(0, len(memory), BACKEND_BYTES)]
    return {entry[ADDRESS:ADDRESS + 16]: struct.unpack_from("=I", entry, LOAD)[0] for entry in entries if entry[STATE] == ACTIVE}


def settled(key):
    """The same after a command that changes nothing of interest."""
    stand.lbctl("services", "set", key, "--name", f"again-{next(PORTS)}")
    return loads()


def send(family, name, sport, flags="S"):
    """Where a packet of that port goes."""
    client, vip = network(family, (CLIENT, VIP), (CLIENT6, VIP6))
    verdict, out = stand.send(frame(client, vip, transport(name, sport=sport, dport=80, flags=flags)))
    assert verdict == "tx"
    return Ether(out)[network(family, IP, IPv6)].dst


def begin(family, name, count):
    """{port: backend} of as many new flows."""
    return {sport: send(family, name, sport) for sport in (next(PORTS) for _ in range(count))}


def make_silent(flows, which, seconds):
    """Flows of client ports have been silent for so long. Returns how many there were."""
    ticks = int(seconds * config("hz")) >> config("tick_shift")
    found = 0
    for at, value in flows.flows(0):
        if client_port(flows, at) not in which:
            continue
        silent = value & ~(0xffff << 48) | ((value >> 48) - ticks & 0xffff) << 48
        struct.pack_into("=Q", flows.memory, at + flows.size - 8, silent)
        found += 1
    return found


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat", "ipip"))
def test_silent_for_too_long(service, family, forward):
    """UDP flows end so, and connections whose client vanished. They are counted off, once; who speaks again is where it was, and
    counts again."""
    port = 80 if forward == "ipip" else 8080
    key = service(vip_text(family, 80, "udp"), [backend_text(family, port, i) for i in range(2)], forward=forward, scheduler="lc")
    with table_of_flows(family) as flows:
        ports = begin(family, "udp", 40)
        assert sum(loads().values()) == sum(settled(key).values()) == 40
        gone = dict(list(ports.items())[:30])
        assert make_silent(flows, gone, 33) == 30
        assert sum(settled(key).values()) == sum(settled(key).values()) == 10
        back = dict(list(gone.items())[:5])
        assert {sport: send(family, "udp", sport) for sport in back} == back
        assert sum(settled(key).values()) == 15
        assert make_silent(flows, ports, 10) == 40
        assert sum(settled(key).values()) == 15


def test_new_flows_go_where_fewer_live(service):
    """A backend whose clients have vanished gets what comes."""
    key = service(vip_text(4, 80, "udp"), [backend_text(4, 8080, i) for i in range(2)], scheduler="lc")
    with table_of_flows(4) as flows:
        ports = begin(4, "udp", 400)
        idle = next(iter(ports.values()))
        make_silent(flows, {sport for sport, backend in ports.items() if backend == idle}, 33)
        settled(key)
        assert list(begin(4, "udp", 240).values()).count(idle) > 140


def test_scheduler_that_begins_to_count(service):
    """Flows from before count where lc comes later, and no more where it goes."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080, i) for i in range(3)], scheduler="rr")
    begin(4, "tcp", 30)
    assert set(loads().values()) == {0}
    stand.lbctl("services", "set", key, "--scheduler", "lc")
    assert set(loads().values()) == {10}
    other = service(vip_text(4, 81, "tcp"), [backend_text(4, 8081)], scheduler="lc")
    stand.lbctl("services", "set", key, "--scheduler", "rr")
    assert set(settled(other).values()) == {0}


def test_another_outer_source(service):
    """Backends go on under other ids: flows in tunnels come along, and those by nat end where they are."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 80, i) for i in range(2)], forward="ipip", scheduler="lc")
    begin(4, "tcp", 20)
    tunnelled = loads()
    for source in ("10.9.0.1", "auto"):
        stand.lbctl("services", "set", key, "--encap-source", source)
        assert loads() == tunnelled and sum(tunnelled.values()) == 20
    stand.lbctl("services", "set", key, "--forward", "nat")
    begin(4, "tcp", 20)
    assert sum(loads().values()) == 40
    stand.lbctl("services", "set", key, "--forward", "ipip", "--encap-source", "10.9.0.1")
    assert loads() == tunnelled


def test_an_age_that_would_begin_anew(service):
    """In 16 bits, after 18 hours: who was silent for half of that is forgotten, so that it does not count again."""
    key = service(vip_text(4, 80, "udp"), [backend_text(4, 8080, i) for i in range(2)], scheduler="lc")
    with table_of_flows(4) as flows:
        ports = begin(4, "udp", 10)
        tick = (1 << config("tick_shift")) / config("hz")
        make_silent(flows, ports, 32700 * tick)
        assert sum(settled(key).values()) == 0 and len(flows.flows(0)) == 10
        make_silent(flows, ports, 100 * tick)
        assert sum(settled(key).values()) == 0 and not flows.flows(0)


def test_packets_that_come_meanwhile(service):
    """The time is read before the flows: who was heard of since has not been silent for 18 hours."""
    key = service(vip_text(4, 80, "udp"), [backend_text(4, 8080, i) for i in range(2)], scheduler="lc")
    with table_of_flows(4) as flows:
        ports = begin(4, "udp", 10)
        make_silent(flows, ports, -20)
        assert sum(settled(key).values()) == 10 and len(flows.flows(0)) == len(flows.flows(1)) == 10


def test_connection_that_was_taken_for_closed(service):
    """A RST that its client never sent: with the next packet of either side it is there again, and counts."""
    key = service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)], scheduler="lc")
    with table_of_flows(4) as flows:
        (sport, backend), = begin(4, "tcp", 1).items()
        _, out = stand.send(frame(CLIENT, VIP, transport("tcp", sport=sport, dport=80, flags="S")))
        answer = transport("tcp", sport=8080, dport=Ether(out)["TCP"].sport, flags="SA")
        assert stand.send(frame(backend, stand.NODE, answer, macs=(backend_mac(backend), stand.NODE_MAC)))[0] == "tx"
        for flags, state, count in (("A", ESTABLISHED, 1), ("R", CLOSING, 0), ("A", ESTABLISHED, 1)):
            send(4, "tcp", sport, flags)
            assert [flow_state(value) for _, value in flows.flows(0)] == [state]
            assert list(settled(key).values()) == [count]
