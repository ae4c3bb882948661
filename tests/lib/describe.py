# SPDX-License-Identifier: GPL-2.0
"""A UDP service that describes what reached it: who asked, which address, with which options; and the asking side."""

import json
import random
import select
import socket

PORT = 9000
# Of linux/in.h and in6.h, which the socket module does not have.
IP_RECVOPTS, IP_OPTIONS, IP_PKTINFO = 6, 4, 8


def describe():
    """Answers from the address that was asked, as real servers with several do."""
    sockets = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        sockets[family] = server = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET:
            server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            server.setsockopt(socket.IPPROTO_IP, IP_RECVOPTS, 1)
        else:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVHOPOPTS, socket.IPV6_RECVDSTOPTS):
                server.setsockopt(socket.IPPROTO_IPV6, option, 1)
        server.bind(("", PORT))
    print("ready", flush=True)
    poll = select.poll()
    for server in sockets.values():
        poll.register(server, select.POLLIN)
    files = {server.fileno(): server for server in sockets.values()}
    while True:
        for number, _ in poll.poll():
            answer_one(files[number])


def answer_one(server):
    data, ancillary, _, client = server.recvmsg(65536, 1000)
    options, source, asked = {}, [], None
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            asked = socket.inet_ntop(socket.AF_INET, value[8:12])
            source = [(level, kind, bytes(4) + value[8:12] + bytes(4))]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            asked = socket.inet_ntop(socket.AF_INET6, value[:16])
            source = [(level, kind, value[:16] + bytes(4))]
        else:
            options[str(kind)] = value.hex()
    line = {"client": client[0], "port": client[1], "asked": asked, "options": options}
    server.sendmsg([json.dumps(line).encode().ljust(len(data))], source, 0, client)


def asking_socket(family, port=0):
    one = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    one.settimeout(5)
    one.bind(("", port))
    return one


def ask_each(family, where, port=0):
    """One socket asks at many (address, port), unconnected: prints who answered, and what."""
    with asking_socket(family, port) as one:
        for address, number in where:
            one.sendto(b"?" * 300, (address, number))
            data, sender = one.recvfrom(65536)
            print(json.dumps(json.loads(data) | {"from": sender[:2]}))


def ask_from_many_ports(family, address, count, first=10000):
    """Every datagram is another flow."""
    for number in range(count):
        with asking_socket(family, first + number) as one:
            one.connect((address, PORT))
            one.send(b"?" * 300)
            print(one.recv(65536).decode())


def ask_with(family, address, options):
    """With socket options ((level, option, value in hex), ...)."""
    with asking_socket(family) as one:
        for level, option, value in options:
            one.setsockopt(level, option, bytes.fromhex(value))
        one.connect((address, PORT))
        one.send(b"?" * 300)
        print(one.recv(65536).decode())


def ask_sizes(family, address, sizes, seed, no_checksum=False):
    """Random datagrams, which the kernel at the other end takes only if their checksums are right."""
    generator = random.Random(seed)
    with asking_socket(family) as one:
        if no_checksum:
            one.setsockopt(socket.SOL_SOCKET, 11, 1)        # SO_NO_CHECK
        one.connect((address, PORT))
        for size in sizes:
            one.send(generator.randbytes(size))
            one.recv(65536)
        print(len(sizes))
