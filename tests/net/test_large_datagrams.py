# SPDX-License-Identifier: GPL-2.0
"""DNS as it is hard for a load balancer: questions and answers of many fragments."""

import hashlib
import json
import socket

import pytest
from conftest import VIPS, text
from direct import TRANSLATED
from routes import far_backend, far_client
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, EDNS0TLV
from world import NODE, PIN_DIR, lbctl, lbctl_json

DNS_PORT = 53
PADDING = 12            # the EDNS option of RFC 7830
UDP_MOST = 65507        # of payload; over IPv6 it is 20 more


def question(size, number):
    """A query for TXT with EDNS, of `size` bytes: padded by the option that there is for it."""
    query = DNS(id=number, rd=1, qd=DNSQR(qname=f"n{number}.example.", qtype="TXT"),
                ar=DNSRROPT(rclass=65535, rdata=[EDNS0TLV(optcode=PADDING, optdata=b"")]))
    room = size - len(bytes(query))
    query.ar.rdata[0].optdata = bytes(n * number % 251 for n in range(room))
    query.ar.rdata[0].optlen = query.ar.rdlen = None
    data = bytes(query)
    assert len(data) == size
    return data


def answer_to(data, size):
    """TXT records that nobody could make who has not got all of the question."""
    query = DNS(data)
    seed = hashlib.sha256(data).digest()
    answer = DNS(id=query.id, qr=1, aa=1, qd=query.qd, an=None)
    left, records, number = size - len(bytes(answer)), b"", 0
    while left > 0:
        head = len(bytes(DNSRR(rrname=query.qd.qname, type="TXT", rdata=b"x"))) - 1
        text_bytes = min(255, max(1, left - head))
        content = hashlib.shake_128(seed + number.to_bytes(4, "big")).digest(text_bytes)
        record = bytes(DNSRR(rrname=query.qd.qname, type="TXT", rdata=content))
        records, left, number = records + record, left - len(record), number + 1
    whole = bytearray(bytes(answer) + records)
    whole[6:8] = number.to_bytes(2, "big")
    return bytes(whole)


def dns_server(size):
    """Answers every question of EDNS, with answers of about that many bytes."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", DNS_PORT))
        print("ready", flush=True)
        while True:
            data, client = server.recvfrom(65536)
            assert DNS(data).ar.rclass == 65535     # what the asking side can take
            server.sendto(answer_to(data, size), client)


def ask_dns(address, family, question_size, answer_size):
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((address, DNS_PORT))
        for number in range(1, 6):
            data = question(question_size, number)
            asking.send(data)
            answer = asking.recv(65536)
            assert answer == answer_to(data, answer_size), (len(answer), answer[:60])
            records = DNS(answer)
            print(json.dumps({"records": records.ancount, "bytes": len(answer)}))


def serve_dns(place, family, size, forward, scheduler="maglev"):
    server = place.host.fork(dns_server, size)
    assert server.stdout.readline() == "ready\n"
    key = f"{text(VIPS[family], DNS_PORT)}/udp"
    lbctl("services", "add", key, f"--forward={forward}", f"--scheduler={scheduler}")
    lbctl("backends", "add", key, text(place.addresses[family], DNS_PORT))
    return key


def drops():
    dump = json.loads(NODE.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/drops").stdout)
    return {entry["formatted"]["values"][0]["value"]["reason"]: sum(cpu["value"]["packets"] for cpu in entry["formatted"]["values"])
            for entry in dump}


@pytest.mark.parametrize("forward,family,outer", TRANSLATED)
@pytest.mark.parametrize("asked,answered", [(600, 4000), (4000, 600), (4000, 4000), (60000, 60000)])
@pytest.mark.parametrize("where", ("near", "far"))
def test_dns(net, forward, family, outer, asked, answered, where):
    """Both ways, compared record by record; with hosts on the node's links, and behind routers."""
    assert family == outer
    if where == "far":
        far_client(net)
    place = far_backend() if where == "far" else net.neighbour(1, "eth1")
    net.attach("eth0", "eth7" if where == "far" else "eth1")
    serve_dns(place, family, answered, forward)
    rows = [json.loads(line) for line in net.client.fork(ask_dns, VIPS[family], family, asked, answered, timeout=60)
            .output().splitlines()]
    assert len(rows) == 5 and all(row["bytes"] >= answered and row["records"] > answered // 300 for row in rows), rows
    (entry,) = lbctl_json("backends", "list")
    assert entry["flows"] == 1
    each = -(-asked // 1472) if asked > 1472 else 1
    assert entry["packets"] >= 5 * each and (entry["reply_packets"] > 5 or answered < 1400)
    assert not any(drops().values()), drops()


@pytest.mark.heavy
@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
def test_the_largest_datagram_there_is(net, family, forward):
    """65,507 bytes in 45 fragments, each way."""
    place = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    serve_dns(place, family, UDP_MOST - 300, forward)
    rows = net.client.fork(ask_dns, VIPS[family], family, UDP_MOST, UDP_MOST - 300, timeout=60).output().splitlines()
    assert len(rows) == 5
