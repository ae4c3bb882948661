# SPDX-License-Identifier: GPL-2.0
"""services list, show, add, set and del."""
import json
import re

import pytest

from cli_world import PIN_DIR, own_by

STABLE = ["service", "owner", "name", "forward", "scheduler", "backends", "packets", "bytes",
          "flows"]
COUNTS = ["reply_packets", "reply_bytes", "refused", "refused_bytes", "dropped", "dropped_bytes"]
OPTIONS = {"affinity": 0, "source_ranges": [], "mss": 0, "encap_source": None, "gue_port": None,
           "gue_checksum": False,
           "echo": True}
VIP = "192.0.2.10:80/tcp"


def service(world, vip):
    return world.json("services", "show", vip)


def test_families_do_not_take_each_others_room(world):
    """As many of each as were asked for, however the other fares."""
    world.ok("attach", "veth0", "--max-services", "2", "--max-flows", "1024")
    for last in (1, 2):
        world.ok("services", "add", f"192.0.2.{last}:80/tcp")
    assert "the map services has no room" in world.fails("services", "add", "192.0.2.3:80/tcp")
    for last in (1, 2):
        world.ok("services", "add", f"[2001:db8::{last}]:80/tcp")
    assert "the map services6 has no room" in world.fails("services", "add", "[2001:db8::3]:80/tcp")
    world.ok("services", "del", "192.0.2.1:80/tcp")
    world.ok("services", "add", "192.0.2.3:80/tcp")


def test_list_json(attached):
    services = attached.json("services", "list")
    assert [list(each) for each in services] == [STABLE + COUNTS + list(OPTIONS)] * 3
    assert [each["service"] for each in services] == \
        ["192.0.2.10:53/udp", VIP, "[2001:db8::10]:80/tcp"]
    assert services[1] == {"service": VIP, "owner": "cli", "name": "", "forward": "nat",
                           "scheduler": "rr", "backends": 2} | dict.fromkeys(
                               ["packets", "bytes", "flows", *COUNTS], 0) | OPTIONS


def test_list_text(attached):
    header, *rows = attached.ok("services", "list").splitlines()
    assert header.split() == ["SERVICE", "FORWARD", "SCHEDULER", "BACKENDS", "PACKETS", "BYTES",
                              "FLOWS", "REFUSED", "DROPPED", "OWNER", "NAME"]
    assert rows[0].split() == ["192.0.2.10:53/udp", "nat", "maglev", *"000000", "cli", "dns"]
    # Columns are aligned: text to the left, numbers to the right.
    assert len({row.index("nat") for row in rows} | {header.index("FORWARD")}) == 1
    ends = {re.search(r"(maglev|rr) +\d", row).end() for row in rows}
    assert ends == {header.index("BACKENDS") + len("BACKENDS")}


def test_list_of_nothing(world):
    world.ok("attach", "veth0")
    assert world.ok("services", "list").split()[0] == "SERVICE"
    assert len(world.ok("services", "list").splitlines()) == 1
    assert world.json("services", "list") == []


def test_show(attached):
    shown = service(attached, VIP)
    members = shown.pop("members")
    assert shown == attached.json("services", "list")[1]
    assert members == attached.json("backends", "list", VIP)
    text = attached.ok("services", "show", "192.0.2.10:53/udp")
    assert re.search(r"^name +dns$", text, re.M) and re.search(r"^backends +0$", text, re.M)


def test_show_of_what_is_not_there(attached):
    line = attached.fails("services", "show", "192.0.2.10:80/udp")
    assert line.startswith("192.0.2.10:80/udp: no such service;")


def test_address_is_the_same_however_it_is_written(attached):
    assert service(attached, "[2001:DB8:0:0::10]:80/tcp")["service"] == "[2001:db8::10]:80/tcp"


def test_add_and_del(world):
    world.ok("attach", "veth0")
    assert world.ok("services", "add", VIP) == ""
    assert service(world, VIP)["forward"] == "nat"
    world.ok("services", "add", "192.0.2.10:80/udp", "-f", "dnat", "-s", "rr", "-n", "x")
    added = service(world, "192.0.2.10:80/udp")
    assert (added["forward"], added["scheduler"], added["name"]) == ("dnat", "rr", "x")
    assert world.ok("services", "del", VIP) == ""
    assert [each["service"] for each in world.json("services", "list")] == ["192.0.2.10:80/udp"]


def test_name_of_full_length(world):
    world.ok("attach", "veth0")
    world.ok("services", "add", VIP, "--name", "n" * 159)
    assert service(world, VIP)["name"] == "n" * 159


def test_add_what_is_there(attached):
    for more in ([], ["--force"], ["--scheduler", "maglev"]):
        line = attached.fails("services", "add", VIP, *more)
        assert line == f"{VIP}: there is such a service already; 'lbctl services set' changes it"


def test_set(world):
    world.ok("attach", "veth0")
    world.ok("services", "add", VIP)
    world.ok("backends", "add", VIP, "198.51.100.5")
    backends = world.json("backends", "list")
    world.ok("services", "set", VIP, "--scheduler", "rr")
    assert service(world, VIP)["scheduler"] == "rr" and service(world, VIP)["forward"] == "nat"
    world.ok("services", "set", VIP, "--forward", "dnat", "--name", "x")
    assert service(world, VIP)["scheduler"] == "rr" and service(world, VIP)["forward"] == "dnat"
    world.ok("services", "set", VIP, "--name", "")
    assert service(world, VIP)["name"] == "" and service(world, VIP)["owner"] == "cli"
    assert world.json("backends", "list") == backends


@pytest.mark.parametrize("words", [["set", "192.0.2.99:80/tcp", "-s", "rr"],
                                   ["del", "192.0.2.99:80/tcp"], ["show", "192.0.2.99:80/tcp"]])
def test_what_is_not_there(attached, words):
    assert attached.fails("services", *words).startswith("192.0.2.99:80/tcp: no such service;")


@pytest.mark.parametrize("owner, name", [(1, "file"), (2, "kubernetes")])
def test_of_another_owner(world, owner, name):
    world.ok("attach", "veth0")
    world.ok("services", "add", VIP, "--name", "default/hello:http")
    world.ok("backends", "add", VIP, "198.51.100.5")
    own_by(world, VIP, owner)
    assert service(world, VIP)["owner"] == name
    for words in (["services", "set", VIP, "-s", "rr"], ["services", "del", VIP],
                  ["backends", "add", VIP, "198.51.100.6"],
                  ["backends", "del", VIP, "198.51.100.5"],
                  ["backends", "set", VIP, "198.51.100.5", "-w", "2"],
                  ["backends", "drain", VIP, "198.51.100.5"]):
        line = world.fails(*words)
        assert line.startswith(f"{VIP}: belongs to {name} as default/hello:http,")
        assert "--force" in line
    line = world.fails("services", "add", VIP)
    assert line.endswith(f"already, which belongs to {name}; --force takes it over")

    world.ok("services", "set", VIP, "-s", "rr", "--force")
    world.ok("backends", "set", VIP, "198.51.100.5", "-w", "2", "--force")
    world.ok("backends", "drain", VIP, "198.51.100.5", "--force")
    world.ok("backends", "add", VIP, "198.51.100.6", "--force")
    world.ok("backends", "del", VIP, "198.51.100.6", "--force")
    assert service(world, VIP)["owner"] == name and service(world, VIP)["scheduler"] == "rr"
    assert world.backend(VIP, "198.51.100.5")["weight"] == 2

    world.ok("services", "add", VIP, "--force")
    taken = service(world, VIP)
    assert (taken["owner"], taken["scheduler"], taken["backends"]) == ("cli", "rr", 1)
    own_by(world, VIP, owner)
    world.ok("services", "del", VIP, "--force")
    assert world.json("services", "list") == []


def test_more_than_there_is_room_for(world):
    world.ok("attach", "veth0", "--max-services", "4", "--max-flows", "1024")
    for last in range(1, 100):
        result = world.lbctl("services", "add", f"192.0.2.{last}:80/tcp")
        if result.status:
            break
    assert last > 4
    assert result.status == 1 and "services" in result.line and " --max-services" in result.line
    there = world.json("services", "list")
    assert len(there) == last - 1
    world.fails("services", "add", "192.0.2.200:80/tcp")
    world.ok("services", "del", there[0]["service"])
    world.ok("services", "add", "192.0.2.200:80/tcp")


def remembered(world):
    """What the one service of IPv4 remembers of before its last change."""
    slots = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/services"))
    values = [slot["formatted"]["value"] for slot in slots]
    return [value["moved"] for value in values if value["generation"]]


def test_what_is_over_is_forgotten(world):
    """Services without flow state remember where connections went before a change; these have had none."""
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP, "--forward", "ipip")
    world.ok("backends", "add", VIP, "198.51.100.5")
    world.ok("backends", "add", VIP, "198.51.100.6")
    assert remembered(world) == [0]


def options(world, vip):
    shown = service(world, vip)
    return {name: shown[name] for name in OPTIONS}


def test_options(world):
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP, "--forward", "gue", "--scheduler", "source", "--affinity", "10800",
             "--source-ranges", "192.0.2.0/24,10.0.0.0/8,203.0.113.7", "--mss", "1400", "--encap-source",
             "172.16.0.0/16", "--gue-port", "6081", "--gue-checksum", "on", "--echo", "off")
    wanted = {"affinity": 10800, "source_ranges": ["10.0.0.0/8", "192.0.2.0/24", "203.0.113.7/32"], "mss": 1400,
              "encap_source": "172.16.0.0/16", "gue_port": 6081, "gue_checksum": True, "echo": False}
    shown = service(world, VIP)
    assert (shown["forward"], shown["scheduler"]) == ("gue", "source")
    assert {**options(world, VIP), "source_ranges": sorted(shown["source_ranges"])} == wanted
    text = world.ok("services", "show", VIP)
    for line in ("affinity      10800 s", "mss           1400", "encap source  172.16.0.0/16", "gue port      6081",
                 "gue checksum  on", "echo          off"):
        assert f"\n{line}\n" in text
    ranges = re.search(r"^source ranges (\S+)$", text, re.M)[1]
    assert sorted(ranges.split(",")) == wanted["source_ranges"]

    # One at a time, the others stay; then all are taken back.
    world.ok("services", "set", VIP, "--affinity", "60")
    assert options(world, VIP)["affinity"] == 60 and options(world, VIP)["mss"] == 1400
    world.ok("services", "set", VIP, "--affinity", "0", "--source-ranges", "any", "--mss", "0", "--encap-source",
             "auto", "--gue-port", "6080", "--gue-checksum", "off", "--echo", "on")
    assert options(world, VIP) == OPTIONS | {"gue_port": 6080}
    text = world.ok("services", "show", VIP)
    assert not re.search("affinity|ranges|mss|encap|checksum|echo", text) and "gue port      6080" in text


def test_ranges_of_ipv6(world):
    vip = "[2001:db8::10]:80/tcp"
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", vip, "--source-ranges", "2001:db8:5::/48")
    assert service(world, vip)["source_ranges"] == ["2001:db8:5::/48"]
    assert "source ranges 2001:db8:5::/48\n" in world.ok("services", "show", vip)
    world.ok("services", "set", vip, "--source-ranges", "")
    assert service(world, vip)["source_ranges"] == []


@pytest.mark.parametrize("forward", ["nat", "dnat", "l2", "ipip", "gue"])
@pytest.mark.parametrize("scheduler", ["maglev", "rr", "lc", "random", "source"])
def test_every_pair(attached, forward, scheduler):
    vip = "192.0.2.77:8080/tcp"
    attached.ok("services", "add", vip, "-f", forward, "-s", scheduler)
    attached.ok("backends", "add", vip, "198.51.100.5")
    shown = service(attached, vip)
    attached.ok("services", "del", vip)
    assert (shown["forward"], shown["scheduler"], shown["backends"]) == (forward, scheduler, 1)


def test_options_of_another_way_of_forwarding(world):
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    assert world.fails("services", "set", VIP, "--gue-port", "6081") == \
        f"{VIP}: --gue-port is for --forward gue: nat sends packets without UDP around them"
    assert world.fails("services", "set", VIP, "--gue-checksum", "on") == \
        f"{VIP}: --gue-checksum is for --forward gue: nat sends packets without UDP around them"
    world.ok("services", "set", VIP, "--gue-checksum", "off")
    assert "--encap-source is for --forward ipip and gue" in \
        world.fails("services", "set", VIP, "--encap-source", "192.0.2.1")
    world.ok("services", "set", VIP, "--encap-source", "auto")
    world.ok("services", "set", VIP, "--forward", "gue", "--gue-port", "6081", "--gue-checksum", "on",
             "--encap-source", "198.51.100.1")
    # What the new way has no use for is forgotten.
    world.ok("services", "set", VIP, "--forward", "ipip")
    assert options(world, VIP) == OPTIONS | {"encap_source": "198.51.100.1"}
    world.ok("services", "set", VIP, "--forward", "nat")
    world.ok("services", "set", VIP, "--forward", "gue")
    assert options(world, VIP) == OPTIONS | {"gue_port": 6080}


def test_backends_that_a_way_of_forwarding_cannot_have(world):
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    world.ok("backends", "add", VIP, "198.51.100.5:8080")
    for forward in ("l2", "ipip", "gue"):
        assert "198.51.100.5:8080" in world.fails("services", "set", VIP, "--forward", forward)
    world.ok("backends", "del", VIP, "198.51.100.5:8080")
    world.ok("services", "set", VIP, "--forward", "ipip")
    assert "8080" in world.fails("backends", "add", VIP, "198.51.100.5:8080")
    world.ok("backends", "add", VIP, "2001:db8:1::5")
    for forward in ("l2", "dnat"):
        assert "IPv6" in world.fails("services", "set", VIP, "--forward", forward)
    world.ok("services", "set", VIP, "--forward", "nat")
    assert world.backend(VIP, "2001:db8:1::5")["address"] == "[2001:db8:1::5]:80"
