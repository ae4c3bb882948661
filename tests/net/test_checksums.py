# SPDX-License-Identifier: GPL-2.0
"""Senders on the node's own links that leave checksums to a device: a veth hands such packets over as they are, with the sum of the
pseudo header where the checksum is to be. What arrives has whole ones, or they would be counted as errors and lost."""

import json

import pytest
from direct import DIRECT, PORT, TRANSLATED, no_rp_filter, own_vips, serve
from world import NODE, lbctl

CROSSED = [("nat", 4, 6), ("nat", 6, 4)]
# A backend on the client's link would answer a client whose address it sees by itself, not through the node.
ROWS = [(*mode, where) for mode in (*TRANSLATED, *CROSSED, *DIRECT) for where in ("another device", "same device")
        if mode[0] != "dnat" or where == "another device"]


def leaves_checksums(host):
    """But not segments, which generic mode cannot send on."""
    host.run("ethtool", "-K", "eth0", "tx", "on", "sg", "on", "tso", "off", "gso", "off")
    features = host.run("ethtool", "-k", "eth0").stdout
    assert "tx-checksumming: on" in features


def errors(host):
    counters = json.loads(host.run("nstat", "-asjz", "TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors").stdout)["kernel"]
    return {name: count for name, count in counters.items() if count}


def place_of(net, where):
    if where == "another device":
        there = net.neighbour(1, "eth1")
        return there, ["eth0", "eth1"]
    return net.same_device(), ["eth0"]


@pytest.mark.parametrize("mode", ("native", "generic"))
@pytest.mark.parametrize("forward,inner,outer,where", ROWS)
def test_they_arrive_whole(net, forward, inner, outer, where, mode):
    there, devices = place_of(net, where)
    if forward not in ("nat", "dnat"):
        own_vips(there)
    no_rp_filter(NODE)
    for host in (net.client, there.host):
        leaves_checksums(host)
    lbctl("attach", *devices, "--mode", mode)
    for protocol in ("tcp", "udp"):
        serve(net, [there], inner, outer, protocol, forward=forward)
    for answer in net.ask("tcp", inner, 2, 100_000, port=PORT) + net.ask("udp", inner, 3, port=PORT):
        assert answer.get("name") == there.host.name and answer.get("intact", True), answer
    assert errors(net.client) == errors(there.host) == {}
