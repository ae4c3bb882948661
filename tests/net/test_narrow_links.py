# SPDX-License-Identifier: GPL-2.0
"""Path MTU discovery from end to end, in every forwarding mode: a link between two routers takes 1,400 bytes, and neither end knows."""

import errno
import json
import re
import select
import socket
import struct

import pytest
from conftest import VIPS, text
from direct import DIRECT, OUTER_BYTES, PORT, TRANSLATED, no_rp_filter, own_vips, serve
from routes import CLIENT, FAR, FIRST, far_backend, far_client
from world import NODE, lbctl, lbctl_json

MODES = [*TRANSLATED, *DIRECT]
NARROW = 1400
MEGABYTE = 1_000_000
# Of linux/in.h and in6.h, which the socket module does not have.
MTU_DISCOVER, MTU, RECVERR = {4: 10, 6: 23}, {4: 14, 6: 24}, {4: 11, 6: 25}
DISCOVER_DO = 2
HEADERS = {4: 28, 6: 48}


def errors_told(one, level, family):
    """Who told (address, MTU) a socket that its datagrams were too long."""
    while True:
        try:
            _, ancillary, _, _ = one.recvmsg(0, 1000, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        for kind, what, data in ancillary:
            if (kind, what) != (level, RECVERR[family]):
                continue
            number, origin, _, _, _, mtu, _ = struct.unpack_from("=IBBBBII", data)
            if origin != 1:     # 1: this host's own
                assert number == errno.EMSGSIZE
                offender = data[20:24] if family == 4 else data[24:40]
                yield socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, offender), mtu


def discover(address, family):
    """Asks by datagrams that must not be fragmented, as large as the way is known to take, until one is answered in full. Prints
    who said that they were too long, and how long the one was, with headers."""
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.setsockopt(level, MTU_DISCOVER[family], DISCOVER_DO)
        one.setsockopt(level, RECVERR[family], 1)
        one.connect((address, PORT))
        poll = select.poll()
        poll.register(one, select.POLLIN)
        told, answer, size = [], b"", 0
        for _ in range(20):
            size = one.getsockopt(level, MTU[family]) - HEADERS[family]
            try:
                one.send(bytes(size))
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
            (_, events), = poll.poll(500) or [(0, 0)]
            told += errors_told(one, level, family)
            if events & select.POLLIN:
                answer = one.recv(65536)
                break
        print(json.dumps({"told": told, "packet": size + HEADERS[family], "answered": len(answer) == size}))


def ask_by_discovery(net, family):
    return json.loads(net.client.fork(discover, VIPS[family], family, timeout=30).output())


def backend_with_a_narrow_link(net, forward):
    """What l2 reaches is on the node's own link: that is the narrow one, and the backend knows only of the way back."""
    if forward != "l2":
        return own_vips(far_backend(NARROW)), ["eth7"]
    place = own_vips(net.neighbour(1, "eth1"))
    NODE.ip("link", "set", "eth1", "mtu", NARROW)
    for command, gateway in ((["ip"], "10.0.1.1"), (["ip", "-6"], "2001:db8:1::1")):
        place.host.run(*command, "route", "change", "default", "via", gateway, "mtu", NARROW, "advmss",
                       1460 if len(command) == 1 else 1440)
    return place, ["eth1"]


@pytest.mark.parametrize("forward,inner,outer", MODES)
def test_behind_the_node(net, forward, inner, outer):
    """The router's error reaches the client translated, or xlb learns from it how much fits into the tunnel and says so as the VIP."""
    place, devices = backend_with_a_narrow_link(net, forward)
    no_rp_filter(NODE)
    net.attach("eth0", *devices)
    for protocol in ("tcp", "udp"):
        serve(net, [place], inner, outer, protocol, forward=forward)
    fits = NARROW - OUTER_BYTES.get((forward, outer), 0)
    found = ask_by_discovery(net, inner)
    assert (found["packet"], found["answered"]) == (fits, True), found
    assert found["told"][-1] == [FIRST[inner] if forward in ("nat", "dnat") else VIPS[inner], fits], found
    (answer,) = net.ask("tcp", inner, size=MEGABYTE, port=PORT)
    assert answer.get("intact"), answer


@pytest.mark.parametrize("forward,inner,outer", MODES)
def test_behind_the_node_tcp_alone(net, forward, inner, outer):
    """A connection that is the first to meet the narrow link loses no more than the segments that did not fit."""
    place, devices = backend_with_a_narrow_link(net, forward)
    no_rp_filter(NODE)
    net.attach("eth0", *devices)
    serve(net, [place], inner, outer, forward=forward)
    (answer,) = net.ask("tcp", inner, size=MEGABYTE, port=PORT)
    assert answer.get("intact"), answer
    fits = NARROW - OUTER_BYTES.get((forward, outer), 0)
    way = net.client.run("ip", "route", "get", VIPS[inner]).stdout
    assert f"mtu {fits}" in way, way


@pytest.mark.parametrize("forward,inner,outer", MODES)
def test_before_the_node(net, forward, inner, outer):
    """What is too long on its way to the client is told the VIP: xlb brings it to the backend that sent it, which sends less."""
    far_client(net, NARROW)
    place = own_vips(net.neighbour(1, "eth1"))
    no_rp_filter(NODE)
    net.attach("eth0", "eth1")
    for protocol in ("tcp", "udp"):
        serve(net, [place], inner, outer, protocol, forward=forward)
    (answer,) = net.ask("tcp", inner, size=MEGABYTE, port=PORT)
    assert answer.get("intact"), answer
    asked = CLIENT[inner]
    if forward == "nat":
        asked = {4: "10.0.1.1", 6: "2001:db8:1::1"}[inner]
    way = place.host.run("ip", "route", "get", asked, *(["from", VIPS[inner]] if forward not in ("nat", "dnat") else [])).stdout
    assert f"mtu {NARROW}" in way, way
    found = ask_by_discovery(net, inner)
    fits = min(NARROW, 1500 - OUTER_BYTES.get((forward, outer), 0))
    assert (found["packet"], found["answered"]) == (fits, True), found
    assert all(who in ([FAR[inner], NARROW], [VIPS[inner], fits]) for who in found["told"]), found


PODS = ("pod_on_bridge", "pod_on_veth")
OWN_PORT = 9001     # of servers that are not every backend's


def serve_own(net, address, inner, protocol, *options):
    key = net.vip(inner, OWN_PORT, protocol)
    lbctl("services", "add", key, *options)
    lbctl("backends", "add", key, text(address, OWN_PORT))


def narrow_uplink(where):
    """What the node sends to clients, by the device or by the route, is longer for its Pods than it may be."""
    if where == "device":
        NODE.run("ip", "link", "set", "eth0", "mtu", NARROW)
    else:
        # Without the word the kernel forwards more all the same.
        NODE.route("192.0.2.100/32", "dev", "eth0", "mtu", "lock", NARROW)
        NODE.route("2001:db8:c::100/128", "dev", "eth0", "mtu", "lock", NARROW)


def answer_by_discovery(family, size):
    """Answers datagrams by one of that size that must not be fragmented, or if that is known to be too long by the longest that is
    not; prints how long that was, with headers."""
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    one = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    one.setsockopt(level, MTU_DISCOVER[family], DISCOVER_DO)
    one.bind(("", OWN_PORT))
    print("ready", flush=True)
    while True:
        _, client = one.recvfrom(1000)
        try:
            one.sendto(bytes(size - HEADERS[family]), client)
            print(size, flush=True)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            with socket.socket(one.family, socket.SOCK_DGRAM) as probe:
                probe.connect(client)
                fits = probe.getsockopt(level, MTU[family])
            one.sendto(bytes(fits - HEADERS[family]), client)
            print(fits, flush=True)


def ask_until_answered(address, family):
    """Prints how long the first answer is, with headers."""
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.connect((address, OWN_PORT))
        for _ in range(20):
            one.send(b"?")
            try:
                print(len(one.recv(65536)) + HEADERS[family])
                return
            except TimeoutError:
                pass


@pytest.mark.parametrize("where", ("device", "route"))
@pytest.mark.parametrize("forward,inner,outer", TRANSLATED)
@pytest.mark.parametrize("pod", PODS)
def test_a_pod_of_this_node(net, pod, forward, inner, outer, where):
    """Its replies come in without XDP: it is told what is too long for the node's own link, and sends less."""
    place = getattr(net, pod)()
    narrow_uplink(where)
    net.attach("eth0")
    serve_own(net, place.addresses[outer], inner, "udp", f"--forward={forward}")
    server = place.host.fork(answer_by_discovery, outer, 1500)
    assert server.stdout.readline() == "ready\n"
    assert net.client.fork(ask_until_answered, VIPS[inner], inner, timeout=30).output().strip() == str(NARROW)
    assert server.stdout.readline().strip() == "1500"
    status = lbctl_json("status")["drops"]
    assert not any(status.values()), status


@pytest.mark.parametrize("forward,inner,outer", TRANSLATED)
@pytest.mark.parametrize("pod", PODS)
def test_segments_of_a_pod_of_this_node(net, pod, forward, inner, outer):
    """What its device is to cut into segments is too long if those are."""
    place = getattr(net, pod)()
    narrow_uplink("route")
    net.attach("eth0")
    serve(net, [place], inner, outer, forward=forward)
    (answer,) = net.ask("tcp", inner, size=MEGABYTE, port=PORT)
    assert answer.get("intact"), answer
    cache = place.host.run("ip", f"-{outer}", "route", "show", "cache").stdout
    assert f"mtu {NARROW}" in cache, cache


def segment_sizes(address):
    with socket.create_connection((address, OWN_PORT)) as one:
        print(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        one.recv(1)


def serve_segment_sizes():
    server = socket.create_server(("::", OWN_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        one, _ = server.accept()
        print(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
        one.close()


@pytest.mark.parametrize("forward,inner,outer", TRANSLATED)
@pytest.mark.parametrize("place", (*PODS, "neighbour", "node"))
def test_mss_of_both_ends(net, place, forward, inner, outer):
    """--mss bounds the segments of both, whatever way the SYN-ACK takes."""
    if place == "node":
        host, there = NODE, {4: "192.0.2.1", 6: "2001:db8:c::1"}
    else:
        made = net.neighbour(1, "eth1") if place == "neighbour" else getattr(net, place)()
        host, there = made.host, made.addresses
    net.attach("eth0")
    serve_own(net, there[outer], inner, "tcp", f"--forward={forward}", "--mss=1000")
    server = host.fork(serve_segment_sizes)
    try:
        assert server.stdout.readline() == "ready\n"
        client = net.client.fork(segment_sizes, VIPS[inner], timeout=20).output()
        # Without the timestamps, which are in every segment.
        assert (int(client), int(server.stdout.readline())) == (1000 - 12, 1000 - 12)
    finally:
        server.kill()


@pytest.mark.parametrize("family", (4, 6))
def test_ping_that_must_not_be_fragmented(net, family):
    """The narrow link's router answers for it; what fits, the VIP answers."""
    far_client(net, NARROW)
    net.attach("eth0")
    serve(net, [], family, family)
    ping = ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s"]
    headers = HEADERS[family]
    too_long = net.client.run(*ping, 1500 - headers, VIPS[family], check=False)
    assert too_long.returncode == 1 and re.search(rf"{FAR[family]}.* ?mtu ?= ?{NARROW}", too_long.stdout), too_long.stdout
    fits = net.client.run(*ping, NARROW - headers, VIPS[family]).stdout
    assert ", 0% packet loss" in fits and VIPS[family] in fits
    (entry,) = lbctl_json("services", "list")
    assert entry["flows"] == 0
