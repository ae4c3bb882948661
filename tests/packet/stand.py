# SPDX-License-Identifier: GPL-2.0
"""A world for test-running the pinned program: one device, v0, with clients and backends behind it, all of whose
addresses the kernel knows."""

import json
import os
import pathlib
import struct
import tempfile

from world import PIN_DIR, lbctl, lbctl_json, run

XDP = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}

NODE_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NODE, NODE6 = "10.200.0.1", "2001:db8:200::1"
BACKENDS = {f"10.200.0.{i}": f"02:00:00:00:01:{i:02x}" for i in (11, 12, 13)}
BACKENDS6 = {f"2001:db8:200::{i}": f"02:00:00:00:01:{i}" for i in (11, 12, 13)}


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


def send(frame):
    """Runs the program on a frame as if it had come by v0: (verdict, frame as it left)."""
    ifindex = int(pathlib.Path("/sys/class/net/v0/ifindex").read_text(encoding="ascii"))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in ("in", "out", "context")}
        with open(paths["in"], "wb") as file:
            file.write(bytes(frame))
        with open(paths["context"], "wb") as file:
            file.write(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0))
        result = run("bpftool", "-j", "prog", "run", "pinned", f"{PIN_DIR}/xdp", "data_in",
                     paths["in"], "data_out", paths["out"], "ctx_in", paths["context"],
                     "repeat", "1")
        with open(paths["out"], "rb") as file:
            return XDP[json.loads(result.stdout)["retval"]], file.read()


def drops():
    """Named drops, summed over CPUs."""
    entries = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/drops").stdout)
    return {entry["formatted"]["values"][0]["value"]["reason"]:
            sum(value["value"]["packets"] for value in entry["formatted"]["values"])
            for entry in entries}
