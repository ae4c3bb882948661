# SPDX-License-Identifier: GPL-2.0
"""What other load balancers are known to get wrong, each by its name, with real hosts at both ends."""

import json
import socket

import describe
import detunnel
import pytest
from conftest import VIPS, text
from describe import IP_OPTIONS
from direct import DIRECT, TRANSLATED, no_rp_filter, own, own_vips
from routes import CLIENT, far_backend, far_client
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from world import NODE, PASS_OBJECT, PIN_DIR, Failed, Host, lbctl, lbctl_json

PORT = describe.PORT
MODES = [*TRANSLATED, *DIRECT]
SECOND_VIPS = {4: "203.0.113.20", 6: "2001:db8:99::20"}
NOBODY = {4: "203.0.113.99", 6: "2001:db8:99::99"}


def start(place):
    server = place.host.fork(describe.describe)
    assert server.stdout.readline() == "ready\n"
    return place


def reassemble(place):
    """The kernel, which puts fragments together, comes before who takes packets out of tunnels."""
    place.host.run("ip", "-force", "link", "set", "eth0", "xdpdrv", "off")
    place.host.run("ip", "-force", "link", "set", "eth0", "xdpdrv", "obj", PASS_OBJECT, "sec", "xdp")
    child = place.host.fork(detunnel.take_out_of_tunnels)
    assert child.stdout.readline() == "ready\n"


def serve(place, forward, inner, outer, vip=None, port=PORT, **options):
    key = f"{text(vip or VIPS[inner], port)}/udp"
    lbctl("services", "add", key, f"--forward={forward}", *[f"--{name}={value}" for name, value in options.items()])
    lbctl("backends", "add", key, text(place.addresses[outer], PORT))
    return key


def answers(asking):
    return [json.loads(line) for line in asking.output().splitlines()]


def drops():
    dump = json.loads(NODE.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/drops").stdout)
    named = {entry["formatted"]["values"][0]["value"]["reason"]: sum(cpu["value"]["packets"] for cpu in entry["formatted"]["values"])
             for entry in dump}
    return {name: packets for name, packets in named.items() if packets}


@pytest.fixture(name="neighbour")
def make_neighbour(net):
    """A backend on the node's link, for every mode."""
    place = start(own_vips(net.neighbour(1, "eth1")))
    no_rp_filter(NODE)
    net.attach("eth0", "eth1")
    return place


@pytest.fixture(name="far")
def make_far(net):
    """Client and backend behind routers, for every mode but l2."""
    far_client(net)
    place = start(own_vips(far_backend()))
    no_rp_filter(NODE)
    net.attach("eth0", "eth7")
    return place


# IPv4: no operation, security of RFC 1108, and record route with room for nine, which is all that fits. IPv6: padding, and an option
# that is to be skipped by who does not know it, before and after a routing header would be.
UNUSUAL = {
    4: {"no operation": [(socket.IPPROTO_IP, IP_OPTIONS, "01010100")],
        "record route": [(socket.IPPROTO_IP, IP_OPTIONS, "072704" + "00" * 36 + "00")],
        "router alert": [(socket.IPPROTO_IP, IP_OPTIONS, "94040000")]},
    6: {"hop by hop": [(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, "0000010400000000")],
        "destination": [(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, "00001e0401020304")],
        "both": [(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, "0000010400000000"),
                 (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, "00011e0c" + "5a" * 12)]},
}
ROWS = [(*mode, what) for mode in MODES for what in UNUSUAL[mode[1]]]


@pytest.mark.parametrize("forward,inner,outer,what", ROWS)
def test_katran_drops_ip_options(net, neighbour, forward, inner, outer, what):
    """The backend gets the packet, and the options with it."""
    serve(neighbour, forward, inner, outer)
    (answer,) = answers(net.client.fork(describe.ask_with, inner, VIPS[inner], UNUSUAL[inner][what], timeout=30))
    for (_, kind, value), got in zip(UNUSUAL[inner][what], answer["options"].values(), strict=True):
        if what == "record route":
            assert got[:4] == value[:4] and len(got) == len(value)
        elif inner == 4:
            assert got == value
        else:
            assert got[2:] == value[2:], kind     # the first byte says what follows
    assert not drops()


@pytest.mark.parametrize("forward,inner,outer", MODES)
@pytest.mark.parametrize("size", (2000, 4000, 60000))
def test_katran_drops_fragments_of_vips_and_cilium_loses_large_udp_in_dsr(net, neighbour, forward, inner, outer, size):
    """All are answered: of IPv4 at once, of IPv6 once a datagram has learned how much fits into the tunnel."""
    serve(neighbour, forward, inner, outer)
    if forward in ("ipip", "gue") and inner == 6:
        with pytest.raises(Failed):     # fragments of 1,500 bytes are answered, and their sender has to ask again
            net.client.fork(describe.ask_sizes, inner, VIPS[inner], [size], 0, timeout=30).output()
    elif forward in ("ipip", "gue"):
        reassemble(neighbour)
        # The neighbour has to be known, or of each packet's fragments one is sent.
        net.client.fork(describe.ask_sizes, inner, VIPS[inner], [500], 0, timeout=30).output()
    assert int(net.client.fork(describe.ask_sizes, inner, VIPS[inner], [size] * 20, 1, timeout=60).output()) == 20


@pytest.mark.parametrize("family", (4, 6))
def test_katran_drops_fragments_of_others(net, neighbour, family):
    """Fragments to and from addresses that are no VIPs go on, beside a service on the same port."""
    serve(neighbour, "nat", family, family)
    there = [(neighbour.addresses[family], PORT)]
    assert answers(net.client.fork(describe.ask_each, family, there, timeout=30))[0]["asked"] == neighbour.addresses[family]
    size = ["-s", 4000, "-c", 5, "-i", 0.05, "-W", 2]
    assert ", 0% packet loss" in net.client.run("ping", "-n", *size, neighbour.addresses[family]).stdout
    assert ", 0% packet loss" in neighbour.host.run("ping", "-n", *size, "192.0.2.100" if family == 4 else "2001:db8:c::100").stdout
    assert not drops()


@pytest.mark.parametrize("family", (4, 6))
def test_katran_answers_echo_for_any_address(net, neighbour, family):
    """Only for addresses of services; what is others' is theirs to answer, or not."""
    serve(neighbour, "nat", family, family)
    ping = ["ping", "-n", "-c", "2", "-i", "0.1", "-W", "1"]
    assert "ttl=64" in net.client.run(*ping, VIPS[family]).stdout
    assert "ttl=63" in net.client.run(*ping, neighbour.addresses[family]).stdout
    with pytest.raises(Failed):
        net.client.run(*ping, NOBODY[family])
    neighbour.host.sh("sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1")
    with pytest.raises(Failed):
        net.client.run(*ping, neighbour.addresses[family])
    assert "ttl=64" in net.client.run(*ping, VIPS[family]).stdout


SIZES = [*range(0, 130), *range(500, 560), *range(1370, 1400)]


@pytest.mark.parametrize("forward,inner,outer", MODES)
def test_broken_checksums(net, neighbour, forward, inner, outer):
    """The kernels at both ends look at the checksums of odd and even lengths, random contents, and of UDP without any."""
    serve(neighbour, forward, inner, outer)
    sizes = [size + 300 if size < 300 else size for size in SIZES]
    assert int(net.client.fork(describe.ask_sizes, inner, VIPS[inner], sizes, 5, timeout=60).output()) == len(sizes)
    if inner == 4:
        net.client.fork(describe.ask_sizes, inner, VIPS[inner], sizes[::10], 6, True, timeout=60).output()
    for host in (net.client, neighbour.host):
        counters = json.loads(host.run("nstat", "-asjz", "UdpInCsumErrors", "Udp6InCsumErrors", "IpExtInCsumErrors").stdout)["kernel"]
        assert not any(counters.values()), counters


RAW_ERROR = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}


def send_error(family, destination, message):
    with socket.socket(RAW_ERROR[family][0], socket.SOCK_RAW, RAW_ERROR[family][1]) as raw:
        raw.sendto(message, (destination, 0))


def error_of_8_bytes(family, kind, source, destination, sport, dport, mtu=1300):
    """An ICMP message that quotes an IP header and no more than its ports, length and checksum."""
    header = (IP if family == 4 else IPv6)(src=source, dst=destination)
    quote = bytes(header / UDP(sport=sport, dport=dport) / (b"x" * 1400))[:28 if family == 4 else 48]
    if family == 4:
        head = {"too big": ICMP(type=3, code=4, nexthopmtu=mtu), "port": ICMP(type=3, code=3)}[kind]
        return bytes(head / quote)
    kind_and_code = {"too big": b"\x02\x00", "port": b"\x01\x04"}[kind]
    return kind_and_code + b"\0\0" + (mtu if kind == "too big" else 0).to_bytes(4, "big") + quote     # the kernel sums it


@pytest.mark.parametrize("forward,inner,outer", [mode for mode in MODES if mode[0] != "l2"])
def test_icmp_errors_with_8_inner_bytes_reach_the_backend(net, far, forward, inner, outer):
    """A router before the node says to the VIP that its answer was too long: the backend believes it."""
    serve(far, forward, inner, outer)
    (answer,) = answers(net.client.fork(describe.ask_each, inner, [(VIPS[inner], PORT)], 33333, timeout=30))
    message = error_of_8_bytes(inner, "too big", VIPS[inner], CLIENT[inner], PORT, 33333)
    near = Host("near", there=True)
    near.fork(send_error, inner, VIPS[inner], message, timeout=10).output()
    own = ["from", VIPS[inner]] if forward not in ("nat", "dnat") else []
    way = far.host.run("ip", "route", "get", answer["client"], *own).stdout
    assert "mtu 1300" in way, way


def wait_for_refusal(family, address):
    """Asks, says from where, and waits for an error to be told of it."""
    with describe.asking_socket(family, 33334) as one:
        one.connect((address, PORT))
        one.send(b"?" * 300)
        print(one.recv(65536).decode(), flush=True)
        try:
            one.recv(65536)
        except ConnectionRefusedError:
            print("refused")


@pytest.mark.parametrize("forward,family,outer", TRANSLATED)
def test_icmp_errors_with_8_inner_bytes_reach_the_client(net, far, forward, family, outer):
    """A router behind the node speaks of addresses and ports that the client has never seen."""
    assert family == outer
    serve(far, forward, family, family)
    asking = net.client.fork(wait_for_refusal, family, VIPS[family], timeout=30)
    seen = json.loads(asking.stdout.readline())
    message = error_of_8_bytes(family, "port", seen["client"], far.addresses[family], seen["port"], PORT)
    Host("first", there=True).fork(send_error, family, seen["client"], message, timeout=10).output()
    assert asking.output() == "refused\n"


def synced(backends, ports, scheduler, family=4):
    """A Service of so many endpoints and ports, as Kubernetes has it."""
    names = [{"name": f"p{port}", "port": port, "protocol": "UDP"} for port in ports]
    meta = {"name": "many", "namespace": "default", "annotations": {"xlb.dev/scheduler": scheduler}}
    service = {"kind": "Service", "apiVersion": "v1", "metadata": meta, "spec": {"type": "LoadBalancer", "ports": names},
               "status": {"loadBalancer": {"ingress": [{"ip": VIPS[family]}]}}}
    slices = [{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": f"IPv{family}",
               "metadata": {"name": f"many-{first}", "namespace": "default", "labels": {"kubernetes.io/service-name": "many"}},
               "ports": [name | {"port": PORT} for name in names],
               "endpoints": [{"addresses": [address]} for address in backends[first:first + 100]]}
              for first in range(0, len(backends), 100)]
    text_in = json.dumps({"kind": "List", "items": [service, *slices]})
    lbctl("backends", "sync", "--from", "-", text_in=text_in)


def many_addresses(place, count):
    """One host that answers for so many addresses."""
    place.host.route("local", "10.60.0.0/16", "dev", "lo")
    NODE.route("10.60.0.0/16", "via", place.addresses[4])
    return [f"10.60.{number // 250}.{number % 250 + 1}" for number in range(count)]


@pytest.mark.heavy
@pytest.mark.parametrize("count", (17, 257, 4097))
def test_loxilb_miscounts_above_16_backends(net, neighbour, count):
    """By turns each gets one flow, then each a second one; and counters say of every one what it has got."""
    backends = many_addresses(neighbour, count)
    synced(backends, [PORT], "rr")
    for turn in (1, 2):
        asked = [answer["asked"] for answer in
                 answers(net.client.fork(describe.ask_from_many_ports, 4, VIPS[4], count, 10000 * turn, timeout=120))]
        assert sorted(asked) == sorted(backends)
    listed = lbctl_json("backends", "list")
    assert {entry["address"] for entry in listed} == {f"{address}:{PORT}" for address in backends}
    assert {(entry["flows"], entry["packets"], entry["reply_packets"], entry["bytes"]) for entry in listed} == {(2, 2, 2, 2 * 328)}
    (service,) = lbctl_json("services", "list")
    assert (service["backends"], service["flows"], service["packets"]) == (count, 2 * count, 2 * count)


@pytest.mark.parametrize("scheduler", ("maglev", "random", "lc"))
def test_loxilb_miscounts_shares(net, neighbour, scheduler):
    """Of 4,000 flows each of 17 backends gets its seventeenth, give or take; those that were counted are those that came."""
    backends = many_addresses(neighbour, 17)
    synced(backends, [PORT], scheduler)
    asked = [answer["asked"] for answer in
             answers(net.client.fork(describe.ask_from_many_ports, 4, VIPS[4], 4000, timeout=120))]
    counted = {entry["address"]: entry["flows"] for entry in lbctl_json("backends", "list")}
    assert counted == {f"{address}:{PORT}": asked.count(address) for address in backends}
    # Six standard deviations of a fair choice, and the unevenness of a ring of a hundred places a backend.
    assert all(4000 / 17 * 0.6 < flows < 4000 / 17 * 1.4 for flows in counted.values()), counted


@pytest.mark.parametrize("forward,inner,outer", MODES)
def test_one_backend_behind_two_vips(net, neighbour, forward, inner, outer):
    """A client asks both by turns from one socket, and is answered by the one that it asked."""
    for vip in (VIPS[inner], SECOND_VIPS[inner]):
        serve(neighbour, forward, inner, outer, vip)
    own(neighbour.host, SECOND_VIPS[inner])
    if forward == "dnat":       # the client's port and the endpoint are all that a reply shows
        asks = [(1, VIPS[inner]), (2, SECOND_VIPS[inner])]
        rows = [answers(net.client.fork(describe.ask_each, inner, [(vip, PORT)] * 3, 20000 + number, timeout=30))
                for number, vip in asks]
        rows = [row for one in rows for row in one]
        order = [vip for _, vip in asks for _ in range(3)]
    else:
        order = [VIPS[inner], SECOND_VIPS[inner]] * 3
        rows = answers(net.client.fork(describe.ask_each, inner, [(vip, PORT) for vip in order], timeout=30))
    assert [row["from"] for row in rows] == [[vip, PORT] for vip in order]


def test_512_ports_in_one_service(net, neighbour):
    """One socket asks at every one of them, and is answered from there."""
    ports = range(1000, 1512)
    synced([neighbour.addresses[4]], ports, "maglev")
    rows = answers(net.client.fork(describe.ask_each, 4, [(VIPS[4], port) for port in ports], 20000, timeout=60))
    assert [row["from"] for row in rows] == [[VIPS[4], port] for port in ports]
    assert len({row["port"] for row in rows}) == 512
    services = lbctl_json("services", "list")
    assert len(services) == 512 and {(entry["packets"], entry["flows"]) for entry in services} == {(1, 1)}
