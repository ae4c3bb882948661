# SPDX-License-Identifier: GPL-2.0
"""The samples of lbctl trace in Documentation/packets.md come out as they stand there, but for numbers that are random."""
import re

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from cli_world import ROOT, World
from test_trace import SEND, pcap

PAGE = ROOT / "Documentation/packets.md"
CLIENT, VIP, ROUTER, DEVICE = "198.51.100.7", "192.0.2.10", "02:00:00:00:00:01", "02:00:00:00:00:fe"
LINK = Ether(src=ROUTER, dst=DEVICE)
SYN = LINK / IP(src=CLIENT, dst="192.0.2.30") / TCP(sport=4242, dport=80, flags="S", seq=1)
FILES = {
    "syn.pcap": SYN,
    "reply.pcap": Ether(src="02:00:00:00:00:11", dst=DEVICE) / IP(src="198.51.100.11", dst=CLIENT) /
                  TCP(sport=8080, dport=4242, flags="SA", seq=1, ack=2),
    "ping.pcap": LINK / IP(src=CLIENT, dst=VIP) / ICMP(id=7, seq=1) / Raw(bytes(56)),
    "traceroute.pcap": LINK / IP(src=CLIENT, dst=VIP, ttl=1) / TCP(sport=4242, dport=80, flags="S", seq=1),
    "lie.pcap": LINK / IP(src=CLIENT, dst=VIP, len=2000) / TCP(sport=4242, dport=80, flags="S", seq=1),
}


def samples():
    """[(command, what it prints)] in the order of the page."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Ten packets, traced\n")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        if line.startswith("    # "):
            found.append((line[6:], []))
        elif line.startswith("    ") and found:
            found[-1][1].append(line[4:])
    return [(command, "\n".join(lines)) for command, lines in found]


def steady(text):
    """nat takes any free port, and a machine may be busy."""
    text = re.sub(r"\b198\.51\.100\.1([:.])\d+\b", r"198.51.100.1\1PORT", text)
    return re.sub(r"last packet \d+ s ago", "last packet 0 s ago", text).strip()


@pytest.fixture(name="place")
def fixture_place(tmp_path):
    """The world of the page: attached, neighbours known; and what runs a command of it."""
    world = World()
    world.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    world.run("ip", "link", "set", "veth0", "address", DEVICE)
    for address, mac in (("7", "07"), ("11", "11"), ("12", "12")):
        world.run("ip", "neigh", "add", f"198.51.100.{address}", "lladdr", f"02:00:00:00:00:{mac}", "dev", "veth0",
                  "nud", "permanent")
    world.lbctl("attach", "veth0", "--max-flows", "1024")
    for name, frame in FILES.items():
        (tmp_path / name).write_bytes(pcap(frame))

    def run(command):
        words = [str(tmp_path / word) if word.endswith(".pcap") else word for word in command.split()]
        if words[0] == "tcpreplay":
            return world.run("/usr/bin/python3", "-c", SEND, bytes(SYN).hex())
        assert words[0] == "lbctl"
        return world.ok(*words[1:])

    yield run
    world.close()


def test_samples(place):
    commands = samples()
    assert sum(command.startswith("lbctl trace") for command, _ in commands) >= 10
    for command, said in commands:
        assert steady(place(command)) == steady(said), command
