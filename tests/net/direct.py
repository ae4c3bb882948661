# SPDX-License-Identifier: GPL-2.0
"""Backends that own the VIP and answer the client themselves, and services of every forwarding mode."""

import itertools

from conftest import VIPS, text
from world import TOP, lbctl, wait_for

DECAP_OBJECT = TOP / "build/tests/lib/decap.bpf.o"
PORT = 8080     # direct return keeps the port
# How a packet is forwarded, the VIP's family, the backend's.
DIRECT = [("l2", 4, 4), ("l2", 6, 6), *itertools.product(("ipip", "gue"), (4, 6), (4, 6))]
TRANSLATED = [("nat", 4, 4), ("nat", 6, 6), ("dnat", 4, 4), ("dnat", 6, 6)]
# What a tunnel adds.
OUTER_BYTES = {("ipip", 4): 20, ("ipip", 6): 40, ("gue", 4): 28, ("gue", 6): 48}


def no_rp_filter(host):
    """A packet from the client may come out of a tunnel, though the way to the client is another."""
    host.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")


def own(host, address):
    """The host's own from now on: the kernel takes up an IPv6 address a moment after it was told to."""
    host.address("lo", f"{address}/{128 if ':' in address else 32}")
    wait_for(lambda: host.run("ip", "route", "get", address).stdout.startswith("local"), what=f"{address} on lo")


def own_vips(place):
    """The backend answers for the VIPs, and takes packets for them out of tunnels."""
    place.host.run("ip", "-force", "link", "set", "eth0", "xdpdrv", "obj", DECAP_OBJECT, "sec", "xdp")
    for vip in VIPS.values():
        own(place.host, vip)
    no_rp_filter(place.host)
    return place


def serve(net, places, inner, outer, protocol="tcp", **options):
    key = net.vip(inner, PORT, protocol)
    lbctl("services", "add", key, *[f"--{name.replace('_', '-')}={value}" for name, value in options.items()])
    for place in places:
        lbctl("backends", "add", key, text(place.addresses[outer], PORT))
    return key
