# SPDX-License-Identifier: GPL-2.0
"""The kernel's own decapsulation, which the backends of the forwarding modes ipip and gue are to use, without xlb in between: what
decapsulating_backend makes does work, and which kernels can."""

import json

import pytest
from conftest import VIPS
from decapsulation import GUE_PORT
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

CLIENT = {4: "192.0.2.100", 6: "2001:db8:c::100"}
PROTOCOL = {4: 4, 6: 41}

SEND_AND_RECEIVE = """
import socket, sys
outer, inner, port, packet = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[5])
families = {4: socket.AF_INET, 6: socket.AF_INET6}
answers = socket.socket(families[inner], socket.SOCK_DGRAM)
answers.bind(("", port))
answers.settimeout(5)
protocol = int(sys.argv[6])
raw = socket.socket(families[outer], socket.SOCK_RAW, protocol)
raw.sendto(packet, (sys.argv[4], 0))
print(answers.recvfrom(2000)[0].decode())
"""


def inside(family, port):
    """A datagram from the client to the VIP, as an IP packet."""
    header = (IPv6 if family == 6 else IP)(src=CLIENT[family], dst=VIPS[family])
    return bytes(header / UDP(sport=port, dport=8080) / Raw(b"who are you?"))


@pytest.mark.every_row
@pytest.mark.parametrize("kind", ("ipip", "gue"))
def test_the_kernel_takes_packets_out_of_tunnels(net, decapsulating_backend, kind):
    place = decapsulating_backend(kind)
    for port, (outer, inner) in enumerate(((4, 4), (4, 6), (6, 4), (6, 6)), 40000):
        packet, protocol = inside(inner, port), PROTOCOL[inner]
        if kind == "gue":
            # Without a checksum, as xlb sends it; variant 1 of GUE has no header of its own.
            length = (8 + len(packet)).to_bytes(2, "big")
            packet = (50000).to_bytes(2, "big") + GUE_PORT.to_bytes(2, "big") + length + b"\0\0" + packet
            protocol = 17
        answer = net.client.run("/usr/bin/python3", "-c", SEND_AND_RECEIVE, outer, inner, port,
                                place.addresses[outer], packet.hex(), protocol)
        assert json.loads(answer.stdout) == {"name": "b8", "client": f"{'::ffff:' if inner == 4 else ''}{CLIENT[inner]}"}
