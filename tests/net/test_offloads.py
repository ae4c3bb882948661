# SPDX-License-Identifier: GPL-2.0
"""Hosts with every offload on: what leaves client and backend is segments of up to 64 KB without checksums, which routers cut up and
finish at the node's wire, and merge again behind it. What is lost or broken on the way shows as retransmissions."""

import json
import socket

import pytest
from conftest import VIPS, text
from direct import DIRECT, PORT, TRANSLATED, no_rp_filter, own_vips, serve
from routes import far_backend, far_client
from world import NODE, lbctl, lbctl_json, wait_for

MEGABYTES = 20
SECONDS = 60
SOL_UDP, UDP_SEGMENT = 17, 103
IPERF_PORT = 5201


def iperf(net, place, family, *options):
    """MEGABYTES by iperf3; bytes (sent, received). The end that is told last that all was sent leaves what it has
    not read yet: they may differ by what was under way."""
    server = place.host.start("iperf3", "--server", "--one-off", "--json", "--port", IPERF_PORT, stdout=-1)
    wait_for(lambda: f":{IPERF_PORT}" in place.host.run("ss", "-Hltn").stdout, what="iperf3's server")
    out = net.client.run("iperf3", "--client", VIPS[family], "--port", IPERF_PORT, "--bytes", MEGABYTES * 1_000_000, "--json",
                         *options, timeout=SECONDS, check=False).stdout
    report = json.loads(out)
    assert "error" not in report, report["error"]
    there = json.loads(server.communicate(timeout=10)[0])
    sender, receiver = (there, report) if "--reverse" in options else (report, there)
    return sender["end"]["sum_sent"]["bytes"], receiver["end"]["sum_received"]["bytes"]


def retransmitted(host):
    counters = json.loads(host.run("nstat", "-asjz", "TcpRetransSegs", "TcpOutSegs", "TcpInCsumErrors", "UdpInCsumErrors",
                                   "Udp6InCsumErrors").stdout)["kernel"]
    assert counters["TcpInCsumErrors"] == counters["UdpInCsumErrors"] == counters["Udp6InCsumErrors"] == 0, counters
    return counters["TcpRetransSegs"]


def packets_out(host, device="eth0"):
    """Bytes and packets, as the device was given them: a segment that is still to be cut counts as one."""
    (entry,) = json.loads(host.run("ip", "-j", "-s", "link", "show", device).stdout)
    return entry["stats64"]["tx"]["bytes"], entry["stats64"]["tx"]["packets"]


@pytest.fixture(name="ends")
def make_ends(net):
    """Client and backend behind routers, or, for l2, the backend on the node's link."""
    def make(forward):
        far_client(net)
        if forward == "l2":
            place = own_vips(net.neighbour(1, "eth1"))
            place.host.run("ethtool", "-K", "eth0", "tx", "on", "sg", "on", "tso", "on", "gso", "on")
            NODE.run("ethtool", "-K", "eth1", "gro", "on")
            net.attach("eth0", "eth1")
        else:
            place = far_backend()
            if forward not in ("nat", "dnat"):
                own_vips(place)
            net.attach("eth0", "eth7")
        no_rp_filter(NODE)
        return place

    return make


def offloads(host):
    return {line.split(":")[0].strip(): line.split()[1] for line in
            host.run("ethtool", "-k", "eth0").stdout.splitlines()[1:] if len(line.split()) > 1}


def is_no_storm(hosts, before, size):
    """What was too long for a tunnel is sent again, and what did not fit into the 256 places of a veth's ring when the connection
    became fast. What goes wrong because of offloads is most of what there is."""
    again = sum(map(retransmitted, hosts)) - before
    assert again < size / 1448 / 20, again


@pytest.mark.parametrize("forward,inner,outer", [*TRANSLATED, *DIRECT])
def test_megabytes_each_way(net, ends, forward, inner, outer):
    """Echoed, and compared by their hash."""
    place = ends(forward)
    on = offloads(net.client)
    assert all(on[name] == "on" for name in ("tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"))
    serve(net, [place], inner, outer, forward=forward)
    hosts, size = (net.client, place.host), MEGABYTES * 1_000_000
    before = sum(map(retransmitted, hosts))
    (answer,) = net.ask("tcp", inner, size=size, port=PORT)
    assert answer.get("intact"), answer
    is_no_storm(hosts, before, 2 * size)
    for sender in hosts if forward != "l2" else hosts[:1]:     # a veth whose other end is xlb's gets segments cut
        sent, packets = packets_out(sender)
        assert sent > size and sent / packets > 3000, (sent, packets)     # offloads did take part
    (entry,) = lbctl_json("backends", "list")
    assert size < entry["bytes"] < size * 1.1


@pytest.mark.parametrize("forward,inner,outer", [*TRANSLATED, *DIRECT])
def test_iperf3(net, ends, forward, inner, outer):
    """There and back."""
    place = ends(forward)
    key = f"{text(VIPS[inner], IPERF_PORT)}/tcp"
    lbctl("services", "add", key, f"--forward={forward}")
    lbctl("backends", "add", key, text(place.addresses[outer], IPERF_PORT))
    hosts = (net.client, place.host)
    for options in ((), ("--reverse",)):
        before = sum(map(retransmitted, hosts))
        sent, received = iperf(net, place, inner, *options)
        assert sent >= MEGABYTES * 1_000_000 and sent / 4 < received <= sent, (sent, received)
        is_no_storm(hosts, before, sent)
        (entry,) = lbctl_json("backends", "list")
        assert options or entry["bytes"] > received
        if forward in ("nat", "dnat"):
            assert not options or entry["reply_bytes"] > received


def segmented(address, family, count, size, rounds):
    """UDP GSO: one send of `count` datagrams, which the kernel cuts; each is answered at its size."""
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        one.connect((address, PORT))
        answered = 0
        for number in range(rounds):
            one.send(bytes([number]) * count * size)
            for _ in range(count):
                assert len(one.recv(65536)) == size
                answered += 1
        print(answered)


@pytest.mark.parametrize("forward,inner,outer", [*TRANSLATED, *DIRECT])
def test_udp_gso(net, ends, forward, inner, outer):
    place = ends(forward)
    serve(net, [place], inner, outer, "udp", forward=forward)
    assert int(net.client.fork(segmented, VIPS[inner], inner, 40, 1200, 10, timeout=SECONDS).output()) == 400
    retransmitted(net.client)
    retransmitted(place.host)
    (entry,) = lbctl_json("backends", "list")
    assert entry["packets"] == 400 and entry["reply_packets"] == (400 if forward in ("nat", "dnat") else 0)


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
def test_a_pod_with_every_offload_on(net, forward, family):
    """A Pod's veth leaves half a checksum to a device that there is not: tc, where such replies are translated, knows."""
    far_client(net)
    place = net.pod_on_bridge()
    assert offloads(place.host)["tx-checksumming"] == "on"
    net.attach("eth0")
    key = f"{text(VIPS[family], IPERF_PORT)}/tcp"
    lbctl("services", "add", key, f"--forward={forward}")
    lbctl("backends", "add", key, text(place.addresses[family], IPERF_PORT))
    serve(net, [place], family, family, "udp", forward=forward)
    hosts = (net.client, place.host)
    for options in ((), ("--reverse",)):
        before = sum(map(retransmitted, hosts))
        sent, received = iperf(net, place, family, *options)
        assert sent >= MEGABYTES * 1_000_000 and sent / 4 < received <= sent, (sent, received)
        is_no_storm(hosts, before, sent)
    assert int(net.client.fork(segmented, VIPS[family], family, 40, 1200, 10, timeout=SECONDS).output()) == 400
