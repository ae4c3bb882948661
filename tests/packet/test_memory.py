# SPDX-License-Identifier: GPL-2.0
"""Flows that are in no table, over changes of everything that a service can change, and when that is over."""

import json
import struct
import time

import pytest
from scapy.layers.inet import IP, TCP

import stand
from frames import CLIENT, CLIENT6, VIP, VIP6, backend_text, frame, vip_text
from world import PIN_DIR, run

SERVICES = 32      # in 64 slots

ESTABLISHED = 3  # enum xlb_flow_state
SERVICE = vip_text(4, 80, "tcp")


def outer(sport, flags):
    verdict, packet = stand.send(frame(CLIENT, VIP, TCP(sport=sport, dport=80, flags=flags)))
    assert verdict == "tx"
    return IP(packet[14:34])


def choices(ports, flags):
    return {port: outer(port, flags).dst for port in ports}


def moved():
    """When flows began to be elsewhere than the ring says; 0: they are not."""
    slots = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/services").stdout)
    (live,) = [slot["formatted"]["value"] for slot in slots if slot["formatted"]["value"]["vip"]["word"] >> 56 == 0
               and slot["formatted"]["value"]["vip"]["word"]]
    return live["moved"]


def be_impatient():
    """An established flow may be silent for no time at all, as far as lbctl can tell."""
    config = ["pinned", f"{PIN_DIR}/config", "key", "0", "0", "0", "0"]
    value = json.loads(run("bpftool", "-j", "map", "lookup", *config).stdout)["value"]
    value = bytes(int(byte, 16) for byte in value)
    at = len(value) - 32 + 2 * ESTABLISHED
    usual = value[at:at + 2]
    hasty = value[:at] + struct.pack("=H", 1) + value[at + 2:]
    run("bpftool", "map", "update", *config, "value", *map(str, hasty))
    return lambda: run("bpftool", "map", "update", *config, "value", *map(str, value[:at] + usual + value[at + 2:]))


@pytest.mark.heavy
def test_flows_stay_when_a_change_is_over(service):
    """What was heard of since the change stays where it began; what was silent goes by the ring."""
    service(SERVICE, [backend_text(4, 80, i) for i in range(2)], forward="ipip")
    heard = choices(range(1000, 1060), "S")
    silent = choices(range(2000, 2060), "S")
    stand.lbctl("backends", "add", SERVICE, backend_text(4, 80, 2))
    assert choices(heard, "A") == heard
    assert moved()
    patient = be_impatient()
    time.sleep(3)
    assert choices(heard, "A") == heard
    stand.lbctl("services", "set", SERVICE, "--name", "again")
    patient()
    assert choices(heard, "A") == heard
    ring = choices(range(2000, 2060), "S")
    assert ring != silent
    # The next change knows where they all are now.
    stand.lbctl("backends", "add", SERVICE, backend_text(4, 80, 3))
    assert choices(heard, "A") == heard
    assert choices(ring, "A") == ring


def test_flows_stay_with_another_outer_source(service):
    """Backends go on under other ids; flows, in tables or not, stay with them."""
    service(SERVICE, [backend_text(4, 80, i) for i in range(2)], forward="ipip")
    old = choices(range(1000, 1040), "S")
    stand.lbctl("backends", "add", SERVICE, backend_text(4, 80, 2))
    tracked = choices(range(3000, 3060), "S")
    stand.lbctl("services", "set", SERVICE, "--encap-source", "10.200.0.77")
    assert outer(1000, "A").src == "10.200.0.77"
    assert choices(old, "A") == old
    assert choices(tracked, "A") == tracked
    stand.lbctl("services", "set", SERVICE, "--encap-source", "auto")
    assert outer(1000, "A").src == stand.NODE
    assert choices(old, "A") == old
    assert choices(tracked, "A") == tracked


@pytest.mark.heavy
def test_flows_stay_whatever_the_mode(service):
    """Also where flow state comes and goes, for each of them."""
    service(SERVICE, [backend_text(4, 80, i) for i in range(3)], forward="ipip")
    kept = choices(range(1000, 1030), "S")
    for step, words in enumerate((["--scheduler", "rr"], ["--scheduler", "maglev"], ["--affinity", "60"],
                                  ["--affinity", "0"], ["--scheduler", "source"], ["--forward", "gue"],
                                  ["--scheduler", "lc"], ["--scheduler", "maglev", "--forward", "ipip"])):
        stand.lbctl("services", "set", SERVICE, *words)
        assert choices(kept, "A") == kept, words
        kept |= choices(range(4000 + 100 * step, 4030 + 100 * step), "S")
    assert choices(kept, "A") == kept


@pytest.mark.parametrize("family,vip,client", [(4, VIP, CLIENT), (6, VIP6, CLIENT6)])
def test_services_of_a_full_table(family, vip, client):
    """As many as there is room for: some are not where their hash says, but behind others. Without backends each refuses, which tells
    that it was found; what is for none of them goes by."""
    ports = range(1000, 1000 + SERVICES)
    with stand.attached(f"--max-services={SERVICES}"):
        for port in ports:
            stand.lbctl("services", "add", vip_text(family, port, "tcp"))
        for port in (*ports, *range(5000, 5000 + 2 * SERVICES)):
            verdict, _ = stand.send(frame(client, vip, TCP(sport=40000, dport=port, flags="S")))
            assert verdict == ("tx" if port in ports else "pass"), port
