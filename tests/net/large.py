# SPDX-License-Identifier: GPL-2.0
"""Datagrams of any size whose answers nobody could make who has not got all of them, whole or as fragments made by hand."""

import hashlib
import json
import socket

import detunnel
from conftest import VIPS
from direct import no_rp_filter, own
from world import lbctl

PORT = 9000
MTU_DISCOVER, DISCOVER_DONT = 10, 0
UDP_HEADER = 8


def answer_to(data, most=65536):
    """As long as what was asked."""
    return (hashlib.sha256(data).digest() * (len(data) // 32 + 1))[:min(len(data), most)]


def answer_large(most=65536):
    """From the address that was asked; without DF, too."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", PORT))
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, DISCOVER_DONT)
    print("ready", flush=True)
    while True:
        data, asked, _, client = server.recvmsg(65536, 100)
        server.sendmsg([answer_to(data, most)], [(level, kind, value[:16] + bytes(4)) for level, kind, value in asked], 0, client)


def forked(host, function, *arguments):
    """A function that says when it is ready, on a host."""
    child = host.fork(function, *arguments)
    assert child.stdout.readline() == "ready\n"


def take_out_of_tunnels(host, vip):
    """The host has the VIP, and takes packets for it out of tunnels behind the kernel's reassembly."""
    own(host, vip)
    no_rp_filter(host)
    forked(host, detunnel.take_out_of_tunnels)


def drops():
    return {reason: count for reason, count in json.loads(lbctl("status", "-o", "json").stdout)["drops"].items() if count}


def fragments(family, source, ident, datagram, size):
    """A datagram to the VIP as IP packets, made by hand."""
    destination = VIPS[family]
    parts = []
    for offset in range(0, len(datagram), size):
        part, more = datagram[offset:offset + size], int(offset + size < len(datagram))
        if family == 4:
            header = bytes([0x45, 0]) + (20 + len(part)).to_bytes(2, "big") + ident.to_bytes(2, "big") + \
                (more << 13 | offset // 8).to_bytes(2, "big") + bytes([64, 17, 0, 0])    # the kernel writes the checksum
            header += socket.inet_aton(source) + socket.inet_aton(destination)
        else:
            header = bytes([0x60, 0, 0, 0]) + (8 + len(part)).to_bytes(2, "big") + bytes([44, 64])
            header += socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
            header += bytes([17, 0]) + (offset | more).to_bytes(2, "big") + ident.to_bytes(4, "big")
        parts.append(header + part)
    return parts


def udp_datagram(family, source, port, to_port, data):
    """With its checksum, which not even a test leaves to anybody."""
    sides = [socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, side) for side in (source, VIPS[family])]
    length = (UDP_HEADER + len(data)).to_bytes(2, "big")
    whole = port.to_bytes(2, "big") + to_port.to_bytes(2, "big") + length + b"\0\0" + data
    summed = b"".join(sides) + b"\0\x11" + length + whole + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(summed[n:n + 2], "big") for n in range(0, len(summed), 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return whole[:6] + ((~total & 0xffff) or 0xffff).to_bytes(2, "big") + whole[8:]
