# SPDX-License-Identifier: GPL-2.0
"""`lbctl attach` by another build of lbctl: its programs come in place of those that are there, and no packet is lost over it."""

import json

import pytest
import traffic
import world
from conftest import PORT, VIPS
from streams import Stream
from test_direct import jumbo
from world import LBCTL, TOP

OTHER = TOP / "build/tests/other/lbctl"
MEGABYTES = 1 << 20


def tags():
    """Of all programs of ours: as pinned, and as on the devices."""
    pinned = json.loads(world.run("bpftool", "-j", "prog", "show", "pinned", f"{world.PIN_DIR}/xdp").stdout)["tag"]
    attached = {(device["device"], member["tag"]) for device in world.lbctl_json("status")["devices"]
                for member in device["chain"] if member["ours"]}
    return pinned, attached


@pytest.mark.parametrize("where", ("neighbour", "bridge", "large frames"))
def test_no_packet_is_lost(net, where):
    """A thousand datagrams a second, each counted, and an open connection, forwarded by XDP or by tc, while programs are replaced forth
    and back; also where the program on the devices takes frames in several buffers, as the pinned one does not."""
    place = net.pod_on_bridge() if where == "bridge" else net.neighbour(1, "eth1")
    if where == "large frames":
        jumbo("eth0", net.client)
        jumbo("eth1", place.host)
    net.attach("eth0", *([] if where == "bridge" else ["eth1"]))
    net.serve([place], 4, "udp")
    net.serve([place], 4, "tcp")
    ours = tags()
    seen = [ours]
    with Stream(net.client, VIPS[4], PORT):
        connection = net.client.fork(traffic.main, "tcp", VIPS[4], PORT, 1, 20 * MEGABYTES, timeout=120)
        for build in (OTHER, LBCTL):
            assert "another build" in world.run(build, "attach", "eth0").stderr
            seen.append(tags())
            assert {tag for _, tag in seen[-1][1]} == {seen[-1][0]}
            assert "another build" not in world.run(build, "attach", "eth0").stderr
    assert seen[0] == seen[2] and seen[0][0] != seen[1][0]
    assert json.loads(connection.output())["intact"]


def test_half_an_upgrade_is_finished(net):
    """Who died in the middle left pins of one build, and programs of another one on the devices; or somebody took a pin away."""
    place = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    net.serve([place], 4, "udp")
    before = tags()
    pin, kept, aside = (f"{world.PIN_DIR}{name}" for name in ("/xdp", "-kept", "/xdp-new"))
    world.run("bpftool", "prog", "pin", "pinned", pin, kept)
    world.run(OTHER, "attach", "eth0")
    world.run("mv", kept, pin)
    world.run("bpftool", "prog", "pin", "pinned", pin, aside)
    assert {tag for _, tag in tags()[1]} != {before[0]} and tags()[0] == before[0]
    for damage in ("true", "rm"):
        world.run(damage, pin)
        assert "another build" in world.lbctl("attach", "eth0").stderr
        assert tags() == before
    assert not world.run("ls", world.PIN_DIR).stdout.count("new")
    assert all("name" in answer for answer in net.ask("udp", 4, 3))


def test_rights_of_pins_stay(net):
    """Who may read them is the administrator's choice."""
    net.attach("eth0")
    pin = f"{world.PIN_DIR}/xdp"
    world.run("chgrp", "daemon", pin)
    world.run("chmod", "0640", pin)
    world.run(OTHER, "attach", "eth0")
    assert world.run("stat", "-c", "%a %G", pin).stdout == "640 daemon\n"
