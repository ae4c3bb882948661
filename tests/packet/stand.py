# SPDX-License-Identifier: GPL-2.0
"""A world for test-running the pinned program: one device, v0, with clients and backends behind it, all of whose
addresses the kernel knows."""

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import select
import socket
import struct

import pytest
from world import PIN_DIR, lbctl, lbctl_json, run, wait_for  # noqa: F401

SYS_BPF, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET, BPF_PROG_TEST_RUN, BPF_MAP_GET_FD_BY_ID = 321, 1, 2, 7, 10, 14
FRAME_MAX = 16384
FIRST_BUFFER = 3000     # bytes of a frame that BPF_PROG_TEST_RUN puts into the first, where it takes several
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 3, 263, 8, 1 << 4
DROPPED_S = 0.1     # who has not been seen by then
CONFIG_BYTES, CONFIG_PARTIAL = 112, 64  # struct xlb_config, and where `partial` is in it
# Not by BPF_PROG_TEST_RUN, but over a veth in generic mode.
ON_THE_WIRE = "XLB_ON_THE_WIRE" in os.environ
XDP = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}

NODE_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
GROUP6_MAC = b"\x33\x33"  # in front (RFC 2464, 7)
NODE, NODE6 = "10.200.0.1", "2001:db8:200::1"
BACKENDS = {f"10.200.0.{i}": f"02:00:00:00:01:{i:02x}" for i in (11, 12, 13, 14, 15)}
BACKENDS6 = {f"2001:db8:200::{i}": f"02:00:00:00:01:{i}" for i in (11, 12, 13, 14, 15)}


def attach(*options):
    lbctl("attach", "v0", *(["--mode", "generic"] if ON_THE_WIRE else []), *options)


@contextlib.contextmanager
def attached(*options):
    """For a while with maps of other sizes."""
    lbctl("detach", "--all")
    try:
        attach(*options)
        yield
        lbctl("detach", "--all")
    finally:
        attach()


def build():
    for command in (
        "ip link set lo up",
        f"ip link add v0 address {NODE_MAC} type veth peer name v1",
        "ip link set v0 up",
        "ip link set v1 up",
        f"ip addr add {NODE}/16 dev v0",
        "ip addr add 192.0.2.254/24 dev v0",
        f"ip -6 addr add {NODE6}/64 dev v0 nodad",
        "ip -6 addr add 2001:db8:1::ffff/64 dev v0 nodad",
        f"ip neigh add 192.0.2.1 lladdr {CLIENT_MAC} dev v0 nud permanent",
        f"ip neigh add 2001:db8:1::1 lladdr {CLIENT_MAC} dev v0 nud permanent",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ):
        run(*command.split())
    for address, mac in (BACKENDS | BACKENDS6).items():
        run("ip", "neigh", "add", address, "lladdr", mac, "dev", "v0", "nud", "permanent")
    attach()
    if ON_THE_WIRE:
        run("ethtool", "-K", "v0", "gro", "off")
        run("ip", "link", "set", "v1", "arp", "off", "addrgenmode", "none")


def bpf(command, attributes):
    """The system call; what the kernel wrote into the attributes."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(SYS_BPF, command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw


class Wire:
    """v0 and v1 as they are: what is sent by v1 comes in by v0, where generic mode takes it; what XDP sends comes back to v1, what it
    passes is seen at v0, and a drop is what nobody has seen. What goes to a group of IPv6 (MLD, router solicitations) is the kernel's
    own: no test sends that."""

    def __init__(self):
        self.ends = {}
        for device, verdict in (("v0", "pass"), ("v1", "tx")):
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            one.bind((device, ETH_P_ALL))
            one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.ends[one] = verdict
        self.v1 = one

    @staticmethod
    def receive(one):
        """A frame with its first tag, which the kernel takes off; None: one that leaves here, or goes to a group of IPv6."""
        data, ancillary, _, sender = one.recvmsg(FRAME_MAX, 100)
        if sender[2] == socket.PACKET_OUTGOING or data[:2] == GROUP6_MAC:
            return None
        for level, kind, value in ancillary:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, protocol = struct.unpack("=IIIHHHH", value)
                if status & TP_STATUS_VLAN_VALID:
                    return data[:12] + struct.pack("!HH", protocol, tci) + data[12:]
        return data

    def seen(self, seconds):
        """{verdict: frame} of what comes first at each end."""
        frames = {}
        while True:
            ready = select.select(list(self.ends), [], [], 0 if frames else seconds)[0]
            if not ready:
                return frames
            for one in ready:
                data = self.receive(one)
                if data is not None:
                    frames.setdefault(self.ends[one], data)

    def send(self, frame):
        while self.seen(0):
            pass
        self.v1.send(frame)
        frames = self.seen(DROPPED_S)
        # What it passes the kernel may answer.
        for verdict in ("pass", "tx"):
            if verdict in frames:
                return verdict, frames[verdict]
        return "drop", b""


def needs_the_note():
    """For tests that read what XDP leaves for tc in front of a packet."""
    if ON_THE_WIRE:
        pytest.skip("on the wire tc has taken the note before anybody sees the packet")


WIRE = []


def send(frame, partial=False, metadata=0):
    """Runs the program on a frame as if it had come by v0: (verdict, frame as it left). `partial`: v0 is what it is, a veth, whose
    peer may leave checksums to it; else a device that gets them complete, as NICs do. Of frames with a port that xlb chose one in
    65,536 looks as if its checksum had been left to the device, and leaves by the kernel: rows that do not mean that must not meet it.
    `metadata`: so many bytes somebody left in front of it already."""
    if ON_THE_WIRE:
        if not WIRE:
            WIRE.append(Wire())
        return WIRE[0].send(bytes(frame))
    word = struct.pack("=I", partial)
    map_change("config", 0, CONFIG_BYTES,
               lambda value: value[:CONFIG_PARTIAL] + word + value[CONFIG_PARTIAL + len(word):])
    with sender(frame, metadata) as again:
        return again()


@contextlib.contextmanager
def sender(frame, metadata=0):
    """The same frame as often and as fast as may be, without the wire; see send()."""
    ifindex = int(pathlib.Path("/sys/class/net/v0/ifindex").read_text(encoding="ascii"))
    frame = bytes(metadata) + bytes(frame)
    path = ctypes.create_string_buffer(f"{PIN_DIR}/xdp".encode())
    program, _ = bpf(BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    data = ctypes.create_string_buffer(frame, len(frame))
    out = ctypes.create_string_buffer(FRAME_MAX)

    def test_run(first):
        context = ctypes.create_string_buffer(struct.pack("=6I", metadata, first, 0, ifindex, 0, 0), 24)
        return bpf(BPF_PROG_TEST_RUN, struct.pack(
            "=IIIIQQIIIIQQIIII", program, 0, len(frame), FRAME_MAX, ctypes.addressof(data),
            ctypes.addressof(out), 1, 0, len(context.raw), 0, ctypes.addressof(context), 0,
            0, 0, 0, 0))[1]

    def again():
        try:
            # Who asks for less than all gets several buffers; older kernels make them as they must, and are to be told all.
            after = test_run(min(len(frame), FIRST_BUFFER))
        except OSError as error:
            if len(frame) <= FIRST_BUFFER or error.errno != errno.EINVAL:
                raise
            after = test_run(len(frame))
        verdict, _, size = struct.unpack_from("=III", after, 4)
        return XDP[verdict], out.raw[:size]

    try:
        yield again
    finally:
        os.close(program)


def map_change(name, key, size, change):
    """Makes a function change an element of a pinned map, of so many bytes. key: a number, or bytes."""
    path = ctypes.create_string_buffer(f"{PIN_DIR}/{name}".encode())
    fd, _ = bpf(BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    element_change(fd, key, size, change)


def own_map(name):
    """The id of a map that is not pinned: only the program knows it."""
    ids = json.loads(run("bpftool", "-j", "prog", "show", "pinned", f"{PIN_DIR}/xdp").stdout)["map_ids"]
    maps = {entry["id"]: entry.get("name") for entry in json.loads(run("bpftool", "-j", "map", "show").stdout)}
    (number,) = [number for number in ids if maps[number] == name]
    return number


def own_map_change(number, key, size, change):
    fd, _ = bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    element_change(fd, key, size, change)


def element_change(fd, key, size, change):
    key = key if isinstance(key, bytes) else struct.pack("=I", key)
    index, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    attributes = struct.pack("=IIQQQ", fd, 0, ctypes.addressof(index), ctypes.addressof(value), 0)
    try:
        bpf(BPF_MAP_LOOKUP_ELEM, attributes)
        value.raw = change(value.raw)
        bpf(BPF_MAP_UPDATE_ELEM, attributes)
    finally:
        os.close(fd)


def drops():
    """Named drops, summed over CPUs."""
    entries = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/drops").stdout)
    return {entry["formatted"]["values"][0]["value"]["reason"]:
            sum(value["value"]["packets"] for value in entry["formatted"]["values"])
            for entry in entries}
