# SPDX-License-Identifier: GPL-2.0
"""Real connections to backends that own the VIP and answer the client themselves, and what is hard for them: sizes, fragments,
narrow links, changes of the set."""

import json
import socket

import features
import pytest
from conftest import VIPS, text
from direct import DIRECT, PORT, TRANSLATED, no_rp_filter, own_vips, serve
from world import NODE, Failed, lbctl, lbctl_json

MEGABYTES_10 = 10_000_000


@pytest.fixture(name="direct")
def make_direct(net):
    """Backends behind devices of their own, with the node's kernel as their way back to the client."""
    no_rp_filter(NODE)
    made = []

    def make(count=1, attached=True):
        for number in range(len(made) + 1, len(made) + count + 1):
            made.append(own_vips(net.neighbour(number, f"eth{number}")))
        net.attach("eth0", *([f"eth{i + 1}" for i in range(len(made))] if attached else []))
        return made

    return make


@pytest.mark.parametrize("forward,inner,outer", DIRECT)
@pytest.mark.parametrize("attached", (True, False), ids=("redirected", "by the kernel"))
def test_ten_megabytes_each_way(net, direct, forward, inner, outer, attached):
    """Full segments do not fit into a tunnel: the client learns the MTU from xlb, and goes on."""
    (place,) = direct(attached=attached)
    serve(net, [place], inner, outer, forward=forward)
    (answer,) = net.ask("tcp", inner, size=MEGABYTES_10, port=PORT)
    assert answer["name"] == "b1" and answer["intact"]
    assert answer["client"].removeprefix("::ffff:") == ("192.0.2.100" if inner == 4 else "2001:db8:c::100")


@pytest.mark.parametrize("forward,inner,outer", DIRECT)
def test_datagrams(net, direct, forward, inner, outer):
    (place,) = direct()
    key = serve(net, [place], inner, outer, "udp", forward=forward)
    assert [answer["name"] for answer in net.ask("udp", inner, 5, port=PORT)] == ["b1"] * 5
    (entry,) = lbctl_json("services", "list")
    assert (entry["service"], entry["packets"], entry["flows"]) == (key, 5, 0)


RECEIVE = """
import socket
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.bind(("::", 6090))
print("ready", flush=True)
print(one.recv(2000)[-1:].decode())
"""


@pytest.mark.parametrize("inner", (4, 6))
def test_a_socket_takes_gue_with_a_checksum_only(net, direct, inner):
    """The kernel's word on the outer checksum: a UDP socket over IPv6 gets no packet without one, nor with a wrong one."""
    (place,) = direct()
    receiver = place.host.start("/usr/bin/python3", "-c", RECEIVE, stdout=-1)
    assert receiver.stdout.readline() == "ready\n"
    key = serve(net, [place], inner, 6, "udp", forward="gue", gue_port=6090)
    for switch, letter in (("off", "a"), ("on", "b")):
        lbctl("services", "set", key, "--gue-checksum", switch)
        net.client.run("/usr/bin/python3", "-c", f"import socket; socket.socket(socket.AF_INET{'' if inner == 4 else '6'}, "
                                                 f"socket.SOCK_DGRAM).sendto(b'{letter}', ('{VIPS[inner]}', {PORT}))")
    assert receiver.communicate(timeout=10)[0] == "b\n"


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("l2", "ipip"))
def test_on_the_clients_own_link(net, family, forward):
    """The backend is where the client is: packets leave by the device that they came by, answers go straight to the client."""
    place = own_vips(net.same_device())
    net.attach("eth0")
    key = serve(net, [place], family, family, forward=forward)
    (answer,) = net.ask("tcp", family, size=MEGABYTES_10, port=PORT)
    assert answer["name"] == "b9" and answer["intact"]
    (entry,) = [entry for entry in lbctl_json("backends", "list") if entry["service"] == key]
    assert entry["packets"] > 0 and entry["reply_packets"] == 0


def test_l2_behind_a_router_is_refused(net):
    """A MAC address reaches as far as the link."""
    place = net.behind_router()
    net.attach("eth0", "eth7")
    key = serve(net, [], 4, 4, forward="l2")
    result = lbctl("backends", "add", key, text(place.addresses[4], PORT), check=False)
    assert result.returncode == 1 and "behind a router" in result.stderr and result.stderr.count("\n") == 1
    assert lbctl_json("backends", "list") == []


@pytest.mark.parametrize("scheduler", ("maglev", "rr", "random", "lc"))
def test_all_backends_take_part(net, direct, scheduler):
    places = direct(3)
    serve(net, places, 4, 4, forward="ipip", scheduler=scheduler)
    names = [answer["name"] for answer in net.ask("tcp", 4, 60, 10, PORT)]
    assert set(names) == {"b1", "b2", "b3"}
    if scheduler == "rr":
        assert names == names[:3] * 20


HOLD = """
import socket, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = [socket.create_connection((address, port), 5) for _ in range(count)]
print("held", flush=True)
for line in sys.stdin:
    for one in held:
        one.sendall((4).to_bytes(8, "big") + b"ping" if line == "ask\\n" else b"")
    for one in held:
        one.settimeout(10)
        data = b""
        while not data.endswith(b"ping"):
            part = one.recv(1000)
            assert part, "closed"
            data += part
    print("answered", flush=True)
    break
"""


@pytest.mark.parametrize("forward", ("ipip", "l2", "gue"))
def test_connections_without_an_entry_stay_while_the_set_changes(net, direct, forward):
    """Nothing is kept of them; backends come and one drains; each goes on where it is."""
    places = direct(3)
    key = serve(net, places[:1], 4, 4, forward=forward)
    holder = net.client.start("/usr/bin/python3", "-c", HOLD, VIPS[4], PORT, 20, stdin=-1, stdout=-1)
    assert holder.stdout.readline() == "held\n"
    for place in places[1:]:
        lbctl("backends", "add", key, text(place.addresses[4], PORT))
    lbctl("backends", "drain", key, text(places[0].addresses[4], PORT))
    names = {answer["name"] for answer in net.ask("tcp", 4, 20, 10, PORT)}
    assert names == {"b2", "b3"}
    holder.stdin.write("ask\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "answered\n"


LARGE = """
import socket, sys
address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(5)
for _ in range(3):
    one.sendto(bytes(size), (address, port))
    print(len(one.recvfrom(65536)[0]), flush=True)
"""


@pytest.mark.parametrize("forward,inner,outer", [*TRANSLATED, ("l2", 4, 4), ("l2", 6, 6)])
@pytest.mark.parametrize("size", (3000, 20000))
def test_fragmented_datagrams_there_and_back(net, direct, forward, inner, outer, size):
    """As large answers of DNS: requests and answers come in fragments, which take the way of their first."""
    (place,) = direct()
    serve(net, [place], inner, outer, "udp", forward=forward)
    result = net.client.run("/usr/bin/python3", "-c", LARGE, VIPS[inner], PORT, size)
    assert [int(line) for line in result.stdout.split()] == [size] * 3


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat", "ipip"))
def test_a_narrow_link_on_the_way(net, family, forward):
    """Behind a router the link takes 1,280 bytes. The router's errors reach the client, or are believed by xlb, and connections
    go on."""
    place = net.behind_router()
    own_vips(place)
    no_rp_filter(NODE)
    for host, device in ((place.host, "eth0"), ("router", "eth1")):
        command = ("ip", "link", "set", device, "mtu", "1400")
        if host == "router":
            NODE.sh(f"nsenter --net=/run/netns/router {' '.join(command)}")
        else:
            host.run(*command)
    net.attach("eth0", "eth7")
    serve(net, [place], family, family, forward=forward)
    (answer,) = net.ask("tcp", family, size=MEGABYTES_10, port=PORT)
    assert answer["intact"]


@pytest.mark.parametrize("family", (4, 6))
def test_ping(net, direct, family):
    """A VIP answers, with any size that arrives whole; with --echo off it does not."""
    direct()
    key = serve(net, [], family, family)
    assert ", 0% packet loss" in net.client.run("ping", "-n", "-c", "3", "-i", "0.05", VIPS[family]).stdout
    assert ", 0% packet loss" in net.client.run("ping", "-n", "-c", "1", "-M", "do", "-s", 1472 if family == 4 else 1452,
                                                VIPS[family]).stdout
    lbctl("services", "set", key, "--echo", "off")
    with pytest.raises(Failed):
        net.client.run("ping", "-n", "-c", "1", "-W", "1", VIPS[family])


@pytest.mark.parametrize("family", (4, 6))
def test_a_hop_too_few_is_told(net, direct, family):
    """A step of a traceroute to the service: the VIP says that the time is over."""
    (place,) = direct()
    serve(net, [place], family, family, "udp", forward="nat")
    level, option, receive = ("IPPROTO_IP", 11, 2) if family == 4 else ("IPPROTO_IPV6", 25, 16)
    result = net.client.run("/usr/bin/python3", "-c", f"""
import socket
one = socket.socket(socket.AF_INET{'' if family == 4 else '6'}, socket.SOCK_DGRAM)
one.setsockopt(socket.{level}, {option}, 1)
one.setsockopt(socket.{level}, {receive}, 1)
one.settimeout(3)
one.connect(("{VIPS[family]}", {PORT}))
one.send(b"probe")
import select
poll = select.poll(); poll.register(one, select.POLLERR)
assert poll.poll(3000)
data, ancillary, flags, address = one.recvmsg(1000, 1000, socket.MSG_ERRQUEUE)
error = ancillary[0][2] if ancillary[0][1] == {option} else ancillary[-1][2]
print(error[5])
""")
    assert result.stdout == ("11\n" if family == 4 else "3\n")


def jumbo(node_device, host):
    """9,000 bytes at both ends, without programs there that are not made for them; what GSO puts together XDP cannot forward."""
    host.sh("ip link set eth0 xdpdrv off; ip link set eth0 mtu 9000; ethtool -K eth0 gro on tso off gso off tx off")
    NODE.run("ip", "link", "set", node_device, "mtu", "9000")


def ask_long(address, length):
    """A datagram of so many bytes; the length of what comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(30)
        asking.connect((address, PORT))
        asking.send(b"x" * length)
        print(len(asking.recv(65536)))


@pytest.mark.parametrize("mode", ("auto", "native"))
def test_jumbo_frames(net, mode):
    """Frames of 9,000 bytes lie in several buffers; connections through them are the same."""
    missing = features.no_frames_in_several_buffers()
    if missing and mode == "native":
        pytest.skip(missing)
    place = net.neighbour(1, "eth1")
    for device, host in (("eth0", net.client), ("eth1", place.host)):
        jumbo(device, host)
    net.attach("eth0", "eth1", "--mode", mode)
    assert {each["mode"] for each in lbctl_json("status")["devices"]} == {"generic" if missing else "native"}
    serve(net, [place], 4, 4, forward="nat")
    (answer,) = net.ask("tcp", 4, size=MEGABYTES_10, port=PORT)
    assert answer["intact"]
    (entry,) = lbctl_json("backends", "list")
    assert entry["bytes"] / entry["packets"] > 3000
    # A datagram is one such frame.
    serve(net, [place], 4, 4, "udp", forward="nat")
    assert net.client.fork(ask_long, VIPS[4], 8000, timeout=60).output() == "8000\n"


def test_counters_of_direct_return(net, direct):
    """Requests are counted, answers do not come by."""
    (place,) = direct()
    serve(net, [place], 4, 4, forward="ipip", scheduler="rr")
    net.ask("tcp", 4, 7, 10, PORT)
    (entry,) = lbctl_json("backends", "list")
    assert entry["flows"] == 7 and entry["packets"] >= 7 * 4 and entry["reply_packets"] == 0
    dump = json.loads(NODE.run("bpftool", "-j", "map", "dump", "pinned", "/sys/fs/bpf/xlb/backend_stats").stdout)
    values = [value["value"] for value in dump[0]["formatted"]["values"]]
    assert sum(value["to_backend"]["packets"] for value in values) == entry["packets"]
