# SPDX-License-Identifier: GPL-2.0
"""Takes packets out of ipip and gue tunnels behind the kernel's reassembly, which the XDP program of the other backends is in front of:
what a raw socket gets goes to a tun device."""

import fcntl
import os
import select
import socket
import struct

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 1, 0x1000
GUE_PORT = 6080


def tun(name):
    os.system("[ -e /dev/net/tun ] || modprobe -q tun")     # nobody else loads it in a virtual machine
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def raw(family, protocol):
    return socket.socket(family, socket.SOCK_RAW, protocol)


def gue(family):
    one = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.IPPROTO_UDP, 102, 1)      # UDP_NO_CHECK6_RX: RFC 6936
    one.bind(("", GUE_PORT))
    return one


def take_out_of_tunnels():
    """Until it is killed. Raw sockets of IPv4 give the outer header as well."""
    device = tun("tun0")
    os.system("ip link set tun0 up mtu 9000; echo 0 >/proc/sys/net/ipv4/conf/tun0/rp_filter")
    sockets = {raw(family, inner): header for inner in (4, 41) for family, header in ((socket.AF_INET, 20), (socket.AF_INET6, 0))}
    sockets |= {gue(socket.AF_INET): 0, gue(socket.AF_INET6): 0}
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)      # SO_RCVBUFFORCE: many come at once
    print("ready", flush=True)
    while True:
        for one in select.select(list(sockets), [], [])[0]:
            os.write(device, one.recv(65536)[sockets[one]:])
