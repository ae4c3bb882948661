# SPDX-License-Identifier: GPL-2.0
"""Backends that take packets out of tunnels by the kernel's own means (ipip, sit, ip6tnl, fou), own the VIP, and answer the client
themselves: what the forwarding modes ipip and gue need behind them. Not every kernel has these devices; the virtual machines' do."""

GUE_PORT = 6080

# By the family of the outer header: devices, and the families that they take out of it.
DEVICES = {
    4: [("tun44", ["ipip"], 4), ("tun46", ["sit"], 6)],
    6: [("tun6", ["ip6tnl", "mode", "any"], None)],
}


class Unsupported(Exception):
    """This kernel does not have what it takes."""


def device(host, name, kind, local):
    """Takes packets out of what comes for the address `local`, whoever sent it."""
    made = host.run("ip", "link", "add", name, "type", *kind, "local", local, "remote", "::" if ":" in local else "any",
                    check=False)
    if made.returncode:
        raise Unsupported(f"this kernel has no {kind[0]} devices ({made.stderr.strip()})")
    host.run("ip", "link", "set", name, "up")


def udp(host, outer, port):
    """What comes to that UDP port is taken for GUE; the IP packet behind the UDP header goes on to the devices above."""
    host.run("modprobe", "-q", "fou" if outer == 4 else "fou6", check=False)       # nobody else loads it
    made = host.run("ip", *(["-6"] if outer == 6 else []), "fou", "add", "port", port, "gue", check=False)
    if made.returncode:
        raise Unsupported(f"this kernel has no fou ({made.stderr.strip()})")


def decapsulate(place, kind, vips, outer=(4, 6), port=GUE_PORT):
    """Makes a backend (tests/net's Place) take packets for the VIPs ({family: address}) out of tunnels to its own addresses.
    kind: "ipip" or "gue"."""
    host = place.host
    for family in outer:
        for name, what, inner in DEVICES[family]:
            if inner is None or inner in vips:
                device(host, name, what, place.addresses[family])
        if kind == "gue":
            udp(host, family, port)
    for inner, vip in vips.items():
        host.address("lo", f"{vip}/{128 if inner == 6 else 32}")
    # The way back to the client is another one.
    host.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")
