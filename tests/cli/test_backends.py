# SPDX-License-Identifier: GPL-2.0
"""backends list, show, add, set, drain and del."""
import re

import pytest

STABLE = ["service", "address", "weight", "state", "packets", "bytes", "flows"]
MORE = ["reply_packets", "reply_bytes"]
VIP, VIP6 = "192.0.2.10:80/tcp", "[2001:db8::10]:80/tcp"
ONE = "198.51.100.5:8080"


def test_list_json(attached):
    backends = attached.json("backends", "list")
    assert [list(each) for each in backends] == [STABLE + MORE] * 3
    assert [tuple(each.values())[:4] for each in backends] \
        == [(VIP, ONE, 2, "active"), (VIP, "198.51.100.6:80", 1, "active"),
            (VIP6, "[2001:db8:1::5]:8080", 1, "active")]


def test_list_of_one_service(attached):
    backends = attached.json("backends", "list")
    assert attached.json("backends", "list", VIP) == backends[:2]
    assert attached.json("backends", "list", VIP6) == backends[2:]
    assert attached.json("backends", "list", "192.0.2.10:53/udp") == []
    line = attached.fails("backends", "list", "192.0.2.11:80/tcp")
    assert line.startswith("192.0.2.11:80/tcp: no such service;")


def test_list_text(attached):
    header, *rows = attached.ok("backends", "list").splitlines()
    assert header.split() == [name.upper() for name in STABLE]
    assert rows[0].split() == [VIP, ONE, "2", "active", "0", "0", "0"]
    assert len({row.index("active") for row in rows} | {header.index("STATE")}) == 1
    assert len(attached.ok("backends", "list", "192.0.2.10:53/udp").splitlines()) == 1


def test_show(attached):
    assert attached.backend(VIP, ONE) == attached.json("backends", "list")[0]
    assert attached.backend(VIP, "198.51.100.6") == attached.json("backends", "list")[1]
    assert re.search(r"^weight +2$", attached.ok("backends", "show", VIP, ONE), re.M)


@pytest.mark.parametrize("words", [["show"], ["set", "-w", "1"], ["drain"], ["del"]],
                         ids=lambda words: words[0])
def test_what_is_not_there(attached, words):
    line = attached.fails("backends", *words, VIP, "198.51.100.5")
    assert line.startswith(f"198.51.100.5:80: is no backend of {VIP};")
    line = attached.fails("backends", *words, "192.0.2.11:80/tcp", ONE)
    assert line.startswith("192.0.2.11:80/tcp: no such service;")


def test_add_to_what_is_not_there(attached):
    line = attached.fails("backends", "add", "192.0.2.11:80/tcp", ONE)
    assert line.startswith("192.0.2.11:80/tcp: no such service;")


def test_add_what_is_there(attached):
    line = attached.fails("backends", "add", VIP, ONE, "--weight", "7")
    assert line == f"{ONE}: is a backend of {VIP} already; 'lbctl backends set' changes it"


@pytest.mark.parametrize("address", ["127.0.0.1", "198.51.100.256", "198.51.100.5:70000"])
def test_wrong_address(attached, address):
    attached.refuses("backends", "add", VIP, address)


@pytest.fixture(name="with_one")
def fixture_with_one(world):
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    world.ok("backends", "add", VIP, ONE, "--weight", "5")
    return world


def test_port_is_the_services_by_default(with_one):
    with_one.ok("backends", "add", VIP, "198.51.100.7")
    with_one.ok("services", "add", VIP6)
    with_one.ok("backends", "add", VIP6, "2001:db8:1::7")
    with_one.ok("backends", "add", VIP6, "[2001:db8:1::8]")
    assert [each["address"] for each in with_one.json("backends", "list")] == \
        [ONE, "198.51.100.7:80", "[2001:db8:1::7]:80", "[2001:db8:1::8]:80"]


def test_list_is_sorted(with_one):
    for address in ("198.51.100.10", "198.51.100.9", "198.51.100.5:80", "10.0.0.1"):
        with_one.ok("backends", "add", VIP, address)
    with_one.ok("services", "add", "192.0.2.9:80/tcp")
    assert [each["address"] for each in with_one.json("backends", "list")] == \
        ["10.0.0.1:80", "198.51.100.5:80", ONE, "198.51.100.9:80", "198.51.100.10:80"]
    assert [each["service"] for each in with_one.json("services", "list")] == \
        ["192.0.2.9:80/tcp", VIP]


def test_one_endpoint_behind_two_services(with_one):
    with_one.ok("services", "add", "192.0.2.11:80/tcp")
    with_one.ok("backends", "add", "192.0.2.11:80/tcp", ONE, "--weight", "9")
    with_one.ok("backends", "drain", VIP, ONE)
    assert [(each["weight"], each["state"]) for each in with_one.json("backends", "list")] == \
        [(5, "draining"), (9, "active")]


@pytest.mark.parametrize("weight", [0, 1, 65535])
def test_weights(with_one, weight):
    with_one.ok("backends", "set", VIP, ONE, "--weight", str(weight))
    assert with_one.backend(VIP, ONE)["weight"] == weight


def test_drain_and_back(with_one):
    with_one.ok("backends", "drain", VIP, ONE)
    assert with_one.backend(VIP, ONE) | {"weight": 5, "state": "draining"} == \
        with_one.backend(VIP, ONE)
    # A new weight does not bring it back; a state does, with that weight.
    with_one.ok("backends", "set", VIP, ONE, "--weight", "6")
    assert with_one.backend(VIP, ONE)["state"] == "draining"
    with_one.ok("backends", "set", VIP, ONE, "--state", "active")
    shown = with_one.backend(VIP, ONE)
    assert (shown["weight"], shown["state"]) == (6, "active")
    with_one.ok("backends", "set", VIP, ONE, "--state", "down", "--weight", "1")
    shown = with_one.backend(VIP, ONE)
    assert (shown["weight"], shown["state"]) == (1, "down")


def test_drain_again_changes_nothing(with_one):
    with_one.ok("backends", "drain", VIP, ONE)
    with with_one.unchanged():
        with_one.ok("backends", "drain", VIP, ONE)


def test_del(with_one):
    with_one.ok("backends", "add", VIP, "198.51.100.6")
    with_one.ok("backends", "del", VIP, ONE)
    assert [each["address"] for each in with_one.json("backends", "list")] == ["198.51.100.6:80"]
    with_one.ok("backends", "del", VIP, "198.51.100.6")
    assert with_one.json("backends", "list") == []
    assert with_one.json("services", "show", VIP)["members"] == []


def test_more_than_there_is_room_for(world):
    world.ok("attach", "veth0", "--max-backends", "4", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    for last in range(1, 100):
        result = world.lbctl("backends", "add", VIP, f"198.51.100.{last}")
        if result.status:
            break
    assert result.status == 1 and " --max-backends" in result.line
    assert last > 3
    there = world.json("backends", "list")
    assert len(there) == last - 1
    world.fails("backends", "add", VIP, "198.51.100.200")
    world.ok("backends", "del", VIP, there[0]["address"])
    world.ok("backends", "add", VIP, "198.51.100.200")


def test_other_family(attached):
    """Only nat and tunnels lead from one to the other."""
    attached.ok("services", "set", VIP, "--forward", "dnat")
    line = attached.fails("backends", "add", VIP, "2001:db8::5")
    assert line == ("[2001:db8::5]:80: is IPv6, but 192.0.2.10:80/tcp is IPv4, and its forwarding, dnat, "
                    "does not lead from one to the other")
    attached.ok("services", "set", VIP6, "--forward", "dnat")
    assert "IPv4" in attached.fails("backends", "add", VIP6, "10.0.0.5")
    assert "no backend of" in attached.fails("backends", "del", VIP, "2001:db8::5")
    attached.ok("services", "set", VIP, "--forward", "nat")
    attached.ok("backends", "add", VIP, "2001:db8::5")
