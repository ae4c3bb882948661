# SPDX-License-Identifier: GPL-2.0
"""nat between families: what scapy makes of a packet is what RFC 7915 makes of the one that came."""

import itertools

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import stand
from frames import (BACKEND, BACKEND6, CLIENT, CLIENT6, LINKS, PORTS, QUOTED, VIP, VIP6, backend_mac, backend_text, frame,
                    network, port_of, transport, vip_text)
from test_packets import NETWORKS

CLIENTS = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}
SERVERS = {4: (stand.NODE, BACKEND), 6: (stand.NODE6, BACKEND6)}
TO_CLIENT = (stand.NODE_MAC, stand.CLIENT_MAC)
MATRIX = list(itertools.product(("tcp", "udp"), NETWORKS, LINKS, (0, 1, 1200, 1300)))


def translated(out, source, destination, layer, link=(), ttl=63, payload=b"hello, world", macs=None, tos=0):
    """A frame of the family of the addresses. IPv4: an id of its own as long as it may be fragmented."""
    if ":" in source:
        header = IPv6(src=source, dst=destination, hlim=ttl, tc=tos)
        length = 40 + len(layer / Raw(payload))
    else:
        length = 20 + len(layer / Raw(payload))
        header = IP(src=source, dst=destination, ttl=ttl, tos=tos,
                    **({"id": 0, "flags": "DF"} if length > 1260 else {"id": Ether(out)[IP].id}))
    packet = Ether(src=macs[0], dst=macs[1])
    for tag in link:
        packet /= tag.copy()
    return bytes(packet / header / layer / Raw(payload))


def begin(service, family, name, **options):
    """A service with one backend of the other family; its backend, as text and MAC address."""
    other = network(family, 6, 4)
    key = vip_text(family, 80, name)
    service(key, [backend_text(other, 8080)], **options)
    return key, other, (stand.NODE_MAC, backend_mac(SERVERS[other][1]))


@pytest.mark.parametrize("name,net,link,size", MATRIX, ids=["-".join(map(str, row)) for row in MATRIX])
def test_there_and_back(service, name, net, link, size):
    """A request and its reply, in both directions between the families; options and extension headers stay behind."""
    family, extra = NETWORKS[net]
    tags, payload, sport = LINKS[link], b"p" * size, next(PORTS)
    key, other, to_backend = begin(service, family, name)
    client, vip = CLIENTS[family]
    source, backend = SERVERS[other]
    asked = frame(client, vip, transport(name, sport=sport, dport=80, flags="S"), tags, extra, payload=payload)
    verdict, out = stand.send(asked)
    assert verdict == "tx"
    port = port_of(out, name)
    assert out == translated(out, source, backend, transport(name, sport=port, dport=8080, flags="S"), tags,
                             payload=payload, macs=to_backend)
    back = frame(backend, source, transport(name, sport=8080, dport=port, flags="SA"), tags, payload=payload, ttl=60,
                 macs=to_backend[::-1])
    verdict, out = stand.send(back)
    assert verdict == "tx"
    assert out == translated(out, vip, client, transport(name, sport=80, dport=sport, flags="SA"), tags, 59,
                             payload, TO_CLIENT)
    # The flow is known now: the same port.
    verdict, out = stand.send(frame(client, vip, transport(name, sport=sport, dport=80, flags="A"), tags, extra))
    assert verdict == "tx" and port_of(out, name) == port
    (counters,) = [entry for entry in stand.lbctl_json("backends", "list") if entry["service"] == key]
    assert (counters["packets"], counters["reply_packets"], counters["flows"]) == (2, 1, 1)


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("tos", (0x03, 0xb8, 0xff))
def test_traffic_class(service, family, tos):
    _, other, to_backend = begin(service, family, "udp")
    client, vip = CLIENTS[family]
    header = IP(src=client, dst=vip, tos=tos) if family == 4 else IPv6(src=client, dst=vip, tc=tos)
    sport = next(PORTS)
    sent = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / header / UDP(sport=sport, dport=80) / Raw(b"x"))
    verdict, out = stand.send(sent)
    assert verdict == "tx"
    assert out == translated(out, *SERVERS[other], UDP(sport=port_of(out, "udp"), dport=8080), payload=b"x",
                             macs=to_backend, tos=tos)


def dropped(before):
    now = stand.drops()
    return {reason: now[reason] - count for reason, count in before.items() if now[reason] != count}


def test_udp_without_checksum(service):
    """IPv6 has none to leave out (RFC 8200, 8.1); the other way around it stays away."""
    begin(service, 4, "udp")
    sent = frame(CLIENT, VIP, UDP(sport=next(PORTS), dport=80, chksum=0))
    before = stand.drops()
    assert stand.send(sent)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_UNTRANSLATABLE": 1}


@pytest.mark.parametrize("family", (4, 6))
def test_fragments_are_dropped(service, family):
    """By a name: RFC 7915 would translate them, xlb does not."""
    begin(service, family, "udp")
    client, vip = CLIENTS[family]
    if family == 4:
        sent = Ether(frame(client, vip, UDP(sport=next(PORTS), dport=80)))
        sent[IP].flags = "MF"
        del sent[IP].chksum
        sent = bytes(sent)
    else:
        fragment = bytes([17, 0, 0, 1, 0, 0, 0, 7])
        plain = frame(client, vip, UDP(sport=next(PORTS), dport=80))
        header = IPv6(src=client, dst=vip, nh=44, plen=len(plain) - 54 + 8)
        sent = plain[:14] + bytes(header)[:40] + fragment + plain[54:]
    before = stand.drops()
    assert stand.send(sent)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_UNTRANSLATABLE": 1}


def test_too_big_in_ipv6(service):
    """IPv4 packets grow by 20 bytes: what does not fit then, and has DF, is answered with what would."""
    begin(service, 4, "tcp")
    sport = next(PORTS)
    for size, fits in ((1440, True), (1441, False)):
        sent = frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="S"), payload=b"x" * size, flags="DF")
        verdict, out = stand.send(sent)
        assert verdict == "tx"
        if fits:
            assert Ether(out)[IPv6].plen == 1460
        else:
            answer = IP(src=VIP, dst=CLIENT, ttl=64, id=0, flags="DF") / ICMP(type=3, code=4, nexthopmtu=1480)
            assert out == bytes(Ether(src=TO_CLIENT[0], dst=TO_CLIENT[1]) / answer / Raw(sent[14:14 + QUOTED[4]]))


def test_routers_narrow_the_way_to_the_backend(service):
    """An ICMPv6 error of theirs is kept, and said in our own name to the next packet that is too big."""
    key = vip_text(4, 81, "tcp")
    service(key, [backend_text(6, 8080, 3)])
    backend = list(stand.BACKENDS6)[3]
    sport = next(PORTS)
    sent = frame(CLIENT, VIP, TCP(sport=sport, dport=81, flags="S"), payload=b"x" * 1400, flags="DF")
    verdict, out = stand.send(sent)
    assert verdict == "tx" and Ether(out)[IPv6].dst == backend
    error = bytes(Ether(src=backend_mac(backend), dst=stand.NODE_MAC) / IPv6(src="2001:db8:200::99", dst=stand.NODE6) /
                  ICMPv6PacketTooBig(mtu=1300) / Raw(out[14:14 + 200]))
    before = stand.drops()
    assert stand.send(error)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_UNTRANSLATABLE": 1}

    def narrowed():
        answer = Ether(stand.send(sent)[1])
        return ICMP in answer and answer

    assert stand.wait_for(narrowed, 5, "the path's MTU")[ICMP].nexthopmtu == 1280


def test_routers_narrow_the_way_to_the_client(service):
    """The backend is told to send less, but never less than 1280 bytes: those may be fragmented on their way."""
    key, other, to_backend = begin(service, 4, "tcp")
    sport = next(PORTS)
    port = port_of(stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags="S")))[1], "tcp")
    source, backend = SERVERS[other]

    def reply(size):
        return stand.send(frame(backend, source, TCP(sport=8080, dport=port, flags="A"), payload=b"x" * size,
                                macs=to_backend[::-1]))

    verdict, out = reply(1400)
    assert verdict == "tx" and Ether(out)[IP].dst == CLIENT
    error = bytes(Ether(src=stand.CLIENT_MAC, dst=stand.NODE_MAC) / IP(src="192.0.2.77", dst=VIP) /
                  ICMP(type=3, code=4, nexthopmtu=1000) / Raw(out[14:14 + 28]))
    before = stand.drops()
    assert stand.send(error)[0] == "drop"
    assert dropped(before) == {"XLB_DROP_UNTRANSLATABLE": 1}

    def narrowed():
        answer = Ether(reply(1400)[1])
        return ICMPv6PacketTooBig in answer and answer

    try:
        answer = stand.wait_for(narrowed, 5, "the path's MTU")
        assert answer[ICMPv6PacketTooBig].mtu == 1280 and answer[IPv6].dst == backend
        verdict, out = reply(1220)
        assert verdict == "tx" and Ether(out)[IP].len == 1260 and not Ether(out)[IP].flags.DF
    finally:
        # Else the client's path is narrow for the rows after this one.
        key = ["0"] * 10 + ["0xff", "0xff"] + CLIENT.split(".")
        stand.run("bpftool", "map", "delete", "pinned", f"{stand.PIN_DIR}/paths", "key", *key)


@pytest.mark.parametrize("family", (4, 6))
def test_a_stranger_of_the_same_words(service, family):
    """An address of one family whose first word is the backend's of the other is not the backend."""
    _, other, _ = begin(service, family, "tcp")
    client, vip = CLIENTS[family]
    verdict, out = stand.send(frame(client, vip, TCP(sport=next(PORTS), dport=80, flags="S")))
    assert verdict == "tx"
    stranger = "32.1.13.184" if other == 6 else f"{0x0ac8:x}:{0x000b:x}::"
    sent = frame(stranger, network(family, stand.NODE, stand.NODE6),
                 TCP(sport=8080, dport=port_of(out, "tcp"), flags="SA"))
    assert stand.send(sent) == ("pass", sent)


@pytest.mark.parametrize("forward", ("dnat", "l2"))
def test_modes_that_keep_the_client_do_not_cross(service, forward):
    key = vip_text(4, 80, "tcp")
    service(key, forward=forward)
    answer = stand.lbctl("backends", "add", key, backend_text(6, 80), check=False)
    assert answer.returncode == 1
    assert f"is IPv6, but {key} is IPv4, and its forwarding, {forward}, does not lead from one to the other" in answer.stderr
