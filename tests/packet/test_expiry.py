# SPDX-License-Identifier: GPL-2.0
"""How long flows stay: one that has been silent for longer than its state allows gives its place to a new one, and not a
tick before; and in which order places are given away."""

import collections
import itertools
import struct
from unittest.mock import ANY

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

import stand
from frames import BACKEND, BACKEND6, CLIENT, CLIENT6, PORTS, VIP, VIP6, backend_mac, backend_text, frame, network, vip_text
from tables import (ANSWERED, CLAIMED, CLOSED, CLOSING, ESTABLISHED, FIN_BACKEND, FIN_CLIENT, ONESIDED, ONEWAY, STREAM, SYN,
                    client_port, config, flow_state, table_of_flows)

SECONDS = {SYN: 60, ESTABLISHED: 7440, FIN_CLIENT: 240, FIN_BACKEND: 240, CLOSED: 60, ONEWAY: 30, STREAM: 300, CLAIMED: 2,
           ANSWERED: 60, ONESIDED: 7440, CLOSING: 240}
NAMES = {SYN: "syn", ESTABLISHED: "established", FIN_CLIENT: "fin-client", FIN_BACKEND: "fin-backend", CLOSED: "closed",
         ONEWAY: "oneway", STREAM: "stream", CLAIMED: "claimed", ANSWERED: "answered", ONESIDED: "onesided",
         CLOSING: "closing"}
HALVES = ("clients", "replies")
LAGGING, LAG = (ESTABLISHED, FIN_CLIENT, FIN_BACKEND), 8     # a flow's copies may be so many ticks apart
PORT_RANGE = "2000-2003"        # for nat: one line of the table for each endpoint


@pytest.fixture(scope="module", autouse=True)
def small_tables(the_stand):
    with stand.attached("--max-flows", "1024", "--nat-ports", PORT_RANGE):
        yield


@pytest.fixture(name="tables")
def make_tables():
    """{family: its flows}"""
    with table_of_flows(4) as flows, table_of_flows(6) as flows6:
        yield {4: flows, 6: flows6}


def begin(family, sport=None, flags="S"):
    client, vip = network(family, (CLIENT, VIP), (CLIENT6, VIP6))
    return stand.send(frame(client, vip, TCP(sport=sport or next(PORTS), dport=80, flags=flags)))


def answer(out, family, flags, to=(stand.NODE, stand.NODE6)):
    """The backend's answer to a packet that it got, by nat from the node, by dnat from the client."""
    backend, to = network(family, (BACKEND, to[0]), (BACKEND6, to[1]))
    return stand.send(frame(backend, to, TCP(sport=8080, dport=Ether(out)[TCP].sport, flags=flags),
                            macs=(backend_mac(backend), stand.NODE_MAC)))


def dnat_answered(out, family):
    """Whether an answer of the backend to a packet by dnat gets to the client."""
    verdict, back = answer(out, family, "SA", to=(CLIENT, CLIENT6))
    return verdict == "tx" and Ether(back)[TCP].sport == 80


def test_timeouts_are_those_of_the_rfcs():
    """In ticks, rounded up, and with what a copy may lag behind."""
    tick = (1 << config("tick_shift")) / config("hz")
    timeouts = config("timeouts")
    for state, seconds in SECONDS.items():
        ticks = timeouts[state] - (LAG if state in LAGGING else 0)
        assert 0 <= ticks * tick - seconds < tick, NAMES[state]


def at_age(tables, family, which, state, age):
    """What becomes of a new flow where all others have been silent for so many ticks. The other family's table tells the time:
    a tick that ended meanwhile is waited out."""
    other = network(family, 6, 4)
    for _ in range(20):
        assert begin(other)[0] == "tx"
        before = tables[other].tick()
        tables[family].clear()
        tables[family].fill(which, (state, before - age))
        verdict, _ = begin(family)
        assert begin(other)[0] == "tx"
        if tables[other].tick() == before:
            return verdict
    return pytest.fail("no tick was long enough")


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
@pytest.mark.parametrize("which", (0, 1), ids=HALVES)
@pytest.mark.parametrize("state", (ESTABLISHED, FIN_CLIENT, FIN_BACKEND, CLAIMED), ids=NAMES.get)
def test_silent_for_too_long(service, tables, family, forward, which, state):
    """To the tick: of flows that are not given away before."""
    for each in (4, 6):
        service(vip_text(each, 80, "tcp"), [backend_text(each, 8080)], forward=forward)
    timeout = config("timeouts")[state]
    assert at_age(tables, family, which, state, timeout) == "drop"
    assert at_age(tables, family, which, state, timeout + 1) == "tx"
    # Heard of by another CPU since this one looked at the time.
    assert at_age(tables, family, which, state, -1) == "drop"


def set_seen(flows, value, seen):
    """Of both copies of the only flow."""
    for which in (0, 1):
        ((at, _),) = flows.flows(which)
        flows.memory[at + flows.size - 8:at + flows.size] = struct.pack("=Q", value & ~(0xffff << 48) | seen << 48)


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
@pytest.mark.parametrize("by", ("client", "backend"))
@pytest.mark.parametrize("state", (ANSWERED, ESTABLISHED, FIN_CLIENT, STREAM), ids=NAMES.get)
def test_when_the_other_copy_is_told(service, tables, family, forward, by, state):
    """A packet is written down once a tick where it was found; the copy for the other direction, which is a cache line of its
    own, is told every eighth tick of flows that nobody's age is compared with, of all others every tick."""
    proto = "udp" if state == STREAM else "tcp"
    service(vip_text(family, 80, proto), [backend_text(family, 8080)], forward=forward)
    client, vip = network(family, (CLIENT, VIP), (CLIENT6, VIP6))
    backend, to = network(family, (BACKEND, stand.NODE), (BACKEND6, stand.NODE6))
    if forward == "dnat":
        to = client
    sport, flows, mac = next(PORTS), tables[family], backend_mac(backend)
    fields = {"flags": "A"} if proto == "tcp" else {}
    layer = TCP if proto == "tcp" else UDP
    verdict, out = stand.send(frame(client, vip, layer(sport=sport, dport=80, **({"flags": "S"} if fields else {}))))
    assert verdict == "tx"
    port = Ether(out)[layer].sport

    def speak():
        if by == "client":
            return stand.send(frame(client, vip, layer(sport=sport, dport=80, **fields)))
        return stand.send(frame(backend, to, layer(sport=8080, dport=port, **fields), macs=(mac, stand.NODE_MAC)))

    found, other = (0, 1) if by == "client" else (1, 0)
    for back in range(1, LAG + 1):
        ((_, value),) = flows.flows(0)
        value = value & ~(15 << 24) | state << 24
        before = ((value >> 48) - back) & 0xffff
        set_seen(flows, value, before)
        assert speak()[0] == "tx"
        ((_, mine),), ((_, twin),) = flows.flows(found), flows.flows(other)
        now = mine >> 48
        assert (now - before) & 0xffff >= back
        told = state not in LAGGING or flow_state(mine) != state or now // LAG != before // LAG
        assert twin >> 48 == (now if told else before), (back, now)
        assert flow_state(twin) == flow_state(mine)


@pytest.mark.parametrize("family", (4, 6))
def test_a_slot_that_is_being_taken_hides_nobody(service, tables, family):
    """It keeps the key of the flow that it had last, which may have begun anew somewhere else."""
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)], forward="dnat")
    flows, sport = tables[family], next(PORTS)
    verdict, out = begin(family, sport=sport)
    assert verdict == "tx" and dnat_answered(out, family)
    for which in (0, 1):
        ((at, value),) = flows.flows(which)
        line = at - at % (4 * flows.size)
        flow = flows.memory[at:at + flows.size]
        taken = flow[:-8] + struct.pack("=Q", CLAIMED << 24 | (value >> 48) << 48)
        flows.memory[line:line + 4 * flows.size] = flow + 3 * taken
    assert begin(family, sport=sport, flags="A") == ("tx", ANY) and dnat_answered(out, family)
    assert [flow_state(value) for which in (0, 1) for _, value in flows.flows(which) if value & 0xffffff] == [ESTABLISHED] * 2


# Who goes before whom; a flow that is over goes first, whatever it was.
ORDER = [*itertools.product([(ESTABLISHED, True), (STREAM, True)], [(CLOSED, False), (SYN, False), (ONEWAY, False)]),
         *itertools.product([(SYN, True), (ONEWAY, True)], [(SYN, False), (CLOSED, False)]),
         *itertools.product([(CLOSED, False)], [(SYN, False), (ONEWAY, False), (ESTABLISHED, False)]),
         *itertools.product([(SYN, False), (ONEWAY, False)], [(ANSWERED, False), (CLOSING, False), (STREAM, False)]),
         *itertools.product([(ANSWERED, False), (CLOSING, False)], [(STREAM, False), (ONESIDED, False)]),
         *itertools.product([(STREAM, False), (ONESIDED, False)], [(ESTABLISHED, False), (FIN_CLIENT, False)])]


def first_line(flow, family, lines):
    """The line that a flow's tuple hashes to before any other (include/xlb/hash.h)."""
    *address, word, _ = struct.unpack(f"={len(flow) // 8}Q", flow)
    whole, (one, other) = (1 << 64) - 1, config("secret")
    if family == 6:
        high, low = address[0] * one & whole, address[1] * other & whole
        word += (high ^ high >> 32) + (low ^ low >> 29)
    word = ((word & whole) ^ one) * other & whole
    return ((word ^ word >> 32) * one & whole) >> 32 & lines - 1


@pytest.mark.parametrize("family", (4, 6))
def test_a_first_line_with_room_is_taken(service, tables, family):
    """Flows stand in the first of their two lines, which is looked at first, while others leave room for two there; else nearby."""
    flows = tables[family]
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)], forward="dnat")
    sent = 400
    for _ in range(sent):
        assert begin(family)[0] == "tx"
    lines, page = flows.half // (4 * flows.size), 4096 // (4 * flows.size)
    there, held = [], collections.Counter()
    for at, _ in sorted(flows.flows(0), key=lambda entry: client_port(flows, entry[0])):    # as they began
        line, first = at // (4 * flows.size), first_line(flows.memory[at:at + flows.size], family, lines)
        assert line == first or held[first] > 2
        held[line] += 1
        there.append((line, first))
    assert len(there) == sent
    assert all(line // page == first // page for line, first in there)


@pytest.mark.parametrize("which", (0, 1), ids=HALVES)
@pytest.mark.parametrize("first,last", ORDER, ids=[
    "-".join(f"{'silent-' if silent else ''}{NAMES[state]}" for state, silent in pair) for pair in ORDER])
def test_who_goes_first(service, tables, which, first, last):
    """Of two kinds, half of the places in each line, a new flow takes one of the first."""
    flows = tables[4]
    service(vip_text(4, 80, "tcp"), [backend_text(4, 8080)])
    begin(4)
    now = flows.tick()

    def seen(state, silent):
        # Well apart from the timeout on either side.
        return now - config("timeouts")[state] - 5 if silent else now

    kinds = [(state, seen(state, silent)) for state, silent in (first, last)]
    flows.fill(which, *kinds)
    assert begin(4)[0] == "tx"
    there = [value for _, value in flows.flows(which)]
    full = flows.half // flows.size
    assert len(there) == full
    left = {kind: sum(flow_state(value) == kind[0] and value >> 48 == kind[1] & 0xffff and value >> 32 & 0xffff == 1
                      for value in there) for kind in kinds}
    assert left == {kinds[0]: full // 2 - 1, kinds[1]: full // 2}


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("by", ("client", "backend"))
@pytest.mark.parametrize("how", ("reset", "fin"))
def test_an_end_gives_slot_and_port_away(service, tables, family, by, how):
    """Both copies of a nat flow are closed by a RST, or by FIN both ways, and go before flows that go on; a client's RST, which
    anybody could send, is not taken for the last word."""
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)])
    flows = tables[family]
    sport = next(PORTS)
    _, out = begin(family, sport=sport)
    assert answer(out, family, "SA")[0] == "tx"
    assert begin(family, sport=sport, flags="A")[0] == "tx"
    assert [flow_state(value) for which in (0, 1) for _, value in flows.flows(which)] == [ESTABLISHED] * 2
    ends = {"client": lambda flags: begin(family, sport=sport, flags=flags), "backend": lambda flags: answer(out, family, flags)}
    if how == "fin":
        assert ends[by]("FA")[0] == "tx"
        half = FIN_CLIENT if by == "client" else FIN_BACKEND
        assert [flow_state(value) for which in (0, 1) for _, value in flows.flows(which)] == [half] * 2
        by = {"client": "backend", "backend": "client"}[by]
    assert ends[by]("RA" if how == "reset" else "FA")[0] == "tx"
    ((slot, value),), ((port_slot, twin),) = flows.flows(0), flows.flows(1)
    assert flow_state(value) == flow_state(twin) == (CLOSING if (how, by) == ("reset", "client") else CLOSED)
    # Three others have the other ports, and all other places are taken.
    while len(flows.flows(1)) < 4:
        _, out = begin(family)
        answer(out, family, "SA")
    for which in (0, 1):
        flows.fill(which, (ESTABLISHED, value >> 48))
    port = value >> 32 & 0xffff
    assert begin(family, sport=sport)[0] == "tx"
    assert [(at, flow_state(new)) for which in (0, 1) for at, new in flows.flows(which) if new >> 32 & 0xffff == port] == [
        (slot, SYN), (port_slot, SYN)]


@pytest.mark.parametrize("family", (4, 6))
def test_a_port_that_is_a_vip_of_the_node(service, tables, family):
    """No flow by nat gets one: what came back to it would be a client's packet for that VIP."""
    tables[family].clear()
    service(vip_text(family, 80, "tcp"), [backend_text(family, 8080)])
    for port in (2000, 2002):
        service(f"{network(family, stand.NODE, f'[{stand.NODE6}]')}:{port}/tcp")
    sent = [begin(family) for _ in range(8)]
    assert [verdict for verdict, _ in sent] == ["tx"] * 8
    assert {Ether(out)[TCP].sport for _, out in sent} == {2001, 2003}
