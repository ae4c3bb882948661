# SPDX-License-Identifier: GPL-2.0
"""A world for test-running the pinned program: one device, v0, with clients and backends behind it, all of whose
addresses the kernel knows."""

import ctypes
import json
import os
import pathlib
import struct

from world import PIN_DIR, lbctl, lbctl_json, run, wait_for  # noqa: F401

SYS_BPF, BPF_OBJ_GET, BPF_PROG_TEST_RUN = 321, 7, 10
FRAME_MAX = 4096
XDP = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}

NODE_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NODE, NODE6 = "10.200.0.1", "2001:db8:200::1"
BACKENDS = {f"10.200.0.{i}": f"02:00:00:00:01:{i:02x}" for i in (11, 12, 13, 14, 15)}
BACKENDS6 = {f"2001:db8:200::{i}": f"02:00:00:00:01:{i}" for i in (11, 12, 13, 14, 15)}


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
    lbctl("attach", "v0")


def bpf(command, attributes):
    """The system call; what the kernel wrote into the attributes."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(SYS_BPF, command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw


def send(frame):
    """Runs the program on a frame as if it had come by v0: (verdict, frame as it left)."""
    ifindex = int(pathlib.Path("/sys/class/net/v0/ifindex").read_text(encoding="ascii"))
    frame = bytes(frame)
    path = ctypes.create_string_buffer(f"{PIN_DIR}/xdp".encode())
    program, _ = bpf(BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    data = ctypes.create_string_buffer(frame, len(frame))
    out = ctypes.create_string_buffer(FRAME_MAX)
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0), 24)
    try:
        _, after = bpf(BPF_PROG_TEST_RUN, struct.pack(
            "=IIIIQQIIIIQQIIII", program, 0, len(frame), FRAME_MAX, ctypes.addressof(data),
            ctypes.addressof(out), 1, 0, len(context.raw), 0, ctypes.addressof(context), 0,
            0, 0, 0, 0))
    finally:
        os.close(program)
    verdict, _, size = struct.unpack_from("=III", after, 4)
    return XDP[verdict], out.raw[:size]


def drops():
    """Named drops, summed over CPUs."""
    entries = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/drops").stdout)
    return {entry["formatted"]["values"][0]["value"]["reason"]:
            sum(value["value"]["packets"] for value in entry["formatted"]["values"])
            for entry in entries}
