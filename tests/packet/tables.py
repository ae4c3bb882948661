# SPDX-License-Identifier: GPL-2.0
"""What stands in the maps, as memory: the configuration, and the tables of flows, which can be filled."""

import contextlib
import ctypes
import mmap
import os
import struct

import stand
from world import PIN_DIR

FLOW = {4: 16, 6: 32}           # bytes of struct xlb_flow and xlb_flow6: the last two words are key and value
(CLAIMED, SYN, ESTABLISHED, FIN_CLIENT, FIN_BACKEND, CLOSED, ONEWAY, STREAM, ANSWERED, ONESIDED,
 CLOSING) = range(1, 12)         # enum xlb_flow_state


@contextlib.contextmanager
def mapped(name, elements, size):
    """A pinned array's memory."""
    path = ctypes.create_string_buffer(f"{PIN_DIR}/{name}".encode())
    fd, _ = stand.bpf(stand.BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    try:
        with mmap.mmap(fd, elements * size) as memory:
            yield memory
    finally:
        os.close(fd)


def config(name):
    (entry,) = stand.json.loads(stand.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/config").stdout)
    return entry["formatted"]["value"][name]


class Flows:
    """The table of a family's flows: a half under clients' tuples, and a half under what replies show."""

    def __init__(self, memory, half, family):
        self.memory, self.half, self.size = memory, half, FLOW[family]

    def flows(self, which):
        """All that is there: [(offset of the flow, value), ...]"""
        start = which * self.half
        data = self.memory[start:start + self.half]
        step, words = self.size // 8, memoryview(data).cast("Q")
        return [(start + index * self.size, value) for index, value in enumerate(words[step - 1::step]) if value]

    def fill(self, which, *kinds):
        """Each free slot with a flow of somebody else, whose (state, tick of the last packet) are of the kinds by turns."""
        start = which * self.half
        kept = [(at, self.memory[at:at + self.size]) for at, _ in self.flows(which)]
        pattern = b"".join(bytes(self.size - 16) + struct.pack("=QQ", 0xfeedfacecafe, flow_value(*kind)) for kind in kinds)
        self.memory[start:start + self.half] = pattern * (self.half // len(pattern))
        for at, flow in kept:
            self.memory[at:at + self.size] = flow

    def clear(self):
        self.memory[:2 * self.half] = bytes(2 * self.half)

    def tick(self):
        """When the last packet of the only flow came, which is then forgotten."""
        ((_, value),) = self.flows(0)
        self.clear()
        return value >> 48


def flow_value(state, seen):
    return 1 | state << 24 | 1 << 32 | (seen & 0xffff) << 48


def flow_state(value):
    return value >> 24 & 15


def client_port(flows, at):
    """The client's, of the flow that stands there."""
    key, = struct.unpack_from("=Q", flows.memory, at + flows.size - 16)
    return int.from_bytes(struct.pack("=H", key >> 32 & 0xffff), "big")


@contextlib.contextmanager
def table_of_flows(family):
    """Empty, before and after."""
    lines = config("flow_lines" if family == 4 else "flow6_lines")
    line = 4 * FLOW[family]
    with mapped("flows" if family == 4 else "flows6", 2 * lines, line) as memory:
        flows = Flows(memory, lines * line, family)
        flows.clear()
        yield flows
        flows.clear()
