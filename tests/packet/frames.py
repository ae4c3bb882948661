# SPDX-License-Identifier: GPL-2.0
"""What the rows of packets are made of."""

import itertools

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

import stand

VIP, VIP6 = "203.0.113.10", "2001:db8:99::10"
CLIENT, CLIENT6 = "192.0.2.1", "2001:db8:1::1"
BACKEND, BACKEND6 = "10.200.0.11", "2001:db8:200::11"
PORTS = itertools.count(20000)

LINKS = {
    "untagged": [],
    "vlan": [Dot1Q(vlan=10)],
    "qinq": [Dot1AD(vlan=100), Dot1Q(vlan=10)],
}


def frame(source, destination, transport, link=(), extra=(), ttl=64, payload=b"hello, world", flags=0,
          macs=(stand.CLIENT_MAC, stand.NODE_MAC)):
    """Ethernet, tags, IP with options or extension headers, transport, payload; lengths and checksums filled in."""
    packet = Ether(src=macs[0], dst=macs[1])
    for tag in link:
        packet /= tag.copy()
    if ":" in source:
        packet /= IPv6(src=source, dst=destination, hlim=ttl)
        for header in extra:
            packet /= header.copy()
    else:
        packet /= IP(src=source, dst=destination, ttl=ttl, options=list(extra), id=4711, flags=flags)
    return bytes(packet / transport / Raw(payload))


QUOTED = {4: 576 - 20 - 8, 6: 1280 - 40 - 8}     # bytes of a long packet that an error quotes (RFC 1812 4.3.2.3, RFC 4443 2.4 c)


def network(family, v4, v6):
    return v4 if family == 4 else v6


def transport(name, **fields):
    return TCP(**fields) if name == "tcp" else UDP(**{key: value for key, value in fields.items()
                                                       if key in ("sport", "dport")})


def port_of(packet, name):
    return Ether(packet)[TCP if name == "tcp" else UDP].sport


def vip_text(family, port, name):
    return f"{network(family, VIP, '[' + VIP6 + ']')}:{port}/{name}"


def backend_text(family, port, index=0):
    return (f"{list(stand.BACKENDS)[index]}:{port}" if family == 4 else
            f"[{list(stand.BACKENDS6)[index]}]:{port}")


def backend_mac(address):
    return (stand.BACKENDS | stand.BACKENDS6)[address]
