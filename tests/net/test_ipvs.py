# SPDX-License-Identifier: GPL-2.0
"""IPVS does the same with the same requests: what its users know is what they get. IPVS forwards in masquerading mode, which keeps the
client's address as dnat does."""

import collections
import json
import shutil
import socket
import time

import features
import pytest
from conftest import VIPS
from world import NODE, lbctl, run

pytestmark = pytest.mark.whole

PORT = 80
PEERS = ("ipvs", "xlb")


class Ipvs:
    def __init__(self, net):
        NODE.address("lo", f"{VIPS[4]}/32")
        del net

    @staticmethod
    def service(protocol, scheduler="rr", persistent=0):
        run("ipvsadm", "-A", "-t" if protocol == "tcp" else "-u", f"{VIPS[4]}:{PORT}", "-s", scheduler,
            *(["-p", persistent] if persistent else []))

    @staticmethod
    def backend(protocol, place, weight=1, change=False):
        run("ipvsadm", "-e" if change else "-a", "-t" if protocol == "tcp" else "-u", f"{VIPS[4]}:{PORT}",
            "-r", f"{place.addresses[4]}:8080", "-m", "-w", weight)


class Xlb:
    def __init__(self, net):
        net.attach("eth0", "eth1", "eth2", "eth3")

    @staticmethod
    def service(protocol, scheduler="rr", persistent=0):
        lbctl("services", "add", f"{VIPS[4]}:{PORT}/{protocol}", "--forward=dnat",
              f"--scheduler={'rr' if scheduler == 'wrr' else scheduler}", f"--affinity={persistent}")

    @staticmethod
    def backend(protocol, place, weight=1, change=False):
        lbctl("backends", "set" if change else "add", f"{VIPS[4]}:{PORT}/{protocol}", f"{place.addresses[4]}:8080",
              f"--weight={weight}")


@pytest.fixture(name="both")
def make_both(net):
    """A world with three backends, twice: once through each."""
    if missing := features.no_module("ip_vs"):
        pytest.skip(missing)
    if not shutil.which("ipvsadm"):
        pytest.skip("ipvsadm is not installed")
    places = [net.neighbour(number, f"eth{number}") for number in (1, 2, 3)]

    def compare(behaviour):
        seen = {}
        for name, make in zip(PEERS, (Ipvs, Xlb)):
            seen[name] = behaviour(net, make(net), places)
            if name == "ipvs":
                run("ipvsadm", "-C")
                run("ip", "addr", "del", f"{VIPS[4]}/32", "dev", "lo")
        assert seen["xlb"] == seen["ipvs"]
        return seen["xlb"]

    yield compare
    run("ipvsadm", "-C", check=False)


def spread(answers):
    """How many answers there are of each, and who they say asked."""
    assert all("name" in answer for answer in answers), answers
    return (collections.Counter(answer["name"] for answer in answers), {answer["client"] for answer in answers})


@pytest.mark.every_run
@pytest.mark.parametrize("protocol", ("tcp", "udp"))
def test_turns(both, protocol):
    def behaviour(net, balancer, places):
        balancer.service(protocol)
        for place in places:
            balancer.backend(protocol, place)
        return spread(net.ask(protocol, count=9))

    counts, clients = both(behaviour)
    assert set(counts.values()) == {3} and {client.removeprefix("::ffff:") for client in clients} == {"192.0.2.100"}


def test_weights(both):
    def behaviour(net, balancer, places):
        balancer.service("tcp", "wrr")
        for place, weight in zip(places, (3, 1, 0)):
            balancer.backend("tcp", place, weight)
        return spread(net.ask("tcp", count=8))

    counts, _ = both(behaviour)
    assert sorted(counts.values()) == [2, 6]


def test_nobody_there(both):
    """Refused at once: not a timeout."""
    def behaviour(net, balancer, places):
        del places
        balancer.service("tcp")
        start = time.monotonic()
        (answer,) = net.ask("tcp")
        assert time.monotonic() - start < 4
        return answer.get("error")

    assert both(behaviour) == "ConnectionRefusedError"


def hold(address, port):
    """A connection that stays open and asks again after a word."""
    with socket.create_connection((address, port), timeout=5) as one:
        one.sendall((1000).to_bytes(8, "big") + bytes(500))
        print("open", flush=True)
        time.sleep(1.5)
        one.sendall(bytes(500))
        with one.makefile("rb") as stream:
            print(json.loads(stream.readline())["name"])


def test_weight_0_drains(both):
    """Who is there stays, who comes goes elsewhere."""
    def behaviour(net, balancer, places):
        balancer.service("tcp")
        balancer.backend("tcp", places[0])
        held = net.client.fork(hold, VIPS[4], PORT, timeout=20)
        assert held.stdout.readline() == "open\n"
        balancer.backend("tcp", places[0], 0, change=True)
        balancer.backend("tcp", places[1])
        new = spread(net.ask("tcp", count=4))
        return held.output().strip(), new

    old, (new, _) = both(behaviour)
    assert (old, new) == ("b1", {"b2": 4})


def test_persistence(both):
    def behaviour(net, balancer, places):
        balancer.service("tcp", persistent=60)
        for place in places:
            balancer.backend("tcp", place)
        return sorted(spread(net.ask("tcp", count=6))[0].values())

    assert both(behaviour) == [6]


def test_megabytes(both):
    def behaviour(net, balancer, places):
        balancer.service("tcp")
        balancer.backend("tcp", places[0])
        (answer,) = net.ask("tcp", size=1_000_000)
        return answer.get("name"), answer.get("intact")

    assert both(behaviour) == ("b1", True)


def ping(net):
    """Whether the VIP answers echo."""
    return net.client.run("ping", "-c", "1", "-W", "1", VIPS[4], check=False).returncode == 0


def test_echo(both):
    def behaviour(net, balancer, places):
        balancer.service("tcp")
        balancer.backend("tcp", places[0])
        return ping(net)

    assert both(behaviour)
