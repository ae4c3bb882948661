# SPDX-License-Identifier: GPL-2.0
"""trace: what it says of packets of every fate, that the program does the same to real ones, and that nothing changes."""
import contextlib
import json
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from cli_world import LBCTL, PIN_DIR, World, run_lbctl, usage_error

VIP, VIP6 = "192.0.2.10:80/tcp", "[2001:db8:2::10]:80/tcp"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:1::7"
BACKENDS = {f"198.51.100.{n}": f"02:00:00:00:00:{n:02}" for n in (11, 12, 13)}
CLIENT_MAC = "02:00:00:00:00:07"
MAPS = ["flows", "flows6", "affinity", "rotation", "backends", "backend_stats", "service_stats", "drops",
        "fragments", "paths"]
SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind(("peer0", 0))
    link.send(bytes.fromhex(sys.argv[1]))
"""


class Traces(World):
    """A world where every neighbour is known, and frames can be sent to the attached device."""

    def __init__(self):
        super().__init__()
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for address, mac in {**BACKENDS, CLIENT: CLIENT_MAC, CLIENT6: CLIENT_MAC, "2001:db8:1::11": "02:00:00:00:00:61",
                             }.items():
            self.run("ip", "neigh", "add", address, "lladdr", mac, "dev", "veth0", "nud", "permanent")
        self.ok_whatever("attach", "veth0", "--max-flows", "1024", "--max-services", "64", "--max-backends", "64")
        self.mac = (self.root / "sys/class/net/veth0/address").read_text(encoding="ascii").strip()

    def ok_whatever(self, *arguments):
        result = self.lbctl(*arguments)
        assert result.status == 0, result

    def service(self, vip=VIP, *options, backends=tuple(BACKENDS)):
        self.ok("services", "add", vip, *options)
        for backend in backends:
            self.ok("backends", "add", vip, backend)

    def maps(self):
        """What they hold, as sums of what bpftool dumps."""
        dumps = self.run("bash", "-ec", f"for name in {' '.join(MAPS)}; do "
                         f"bpftool -j map dump pinned {PIN_DIR}/$name | md5sum; done")
        return dict(zip(MAPS, dumps.splitlines(), strict=True))

    @contextlib.contextmanager
    def untouched(self):
        before = self.maps()
        yield
        after = self.maps()
        assert [name for name in MAPS if after[name] != before[name]] == []

    def trace(self, *words):
        with self.untouched():
            return self.json("trace", *words)

    def trace_frame(self, frame, folder):
        path = folder / "frame.pcap"
        path.write_bytes(pcap(frame))
        return self.trace("--packet", str(path))

    def send(self, frame):
        self.run("/usr/bin/python3", "-c", SEND, bytes(frame).hex())

    def link(self):
        return Ether(src=CLIENT_MAC, dst=self.mac)

    def frame(self, port=4242, **more):
        return self.link() / IP(src=CLIENT, dst="192.0.2.10") / TCP(sport=port, dport=80, **more)


def pcap(*frames, order="<", magic=0xA1B2C3D4, link=1, lost=0):
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for frame in map(bytes, frames):
        data += struct.pack(f"{order}IIII", 0, 0, len(frame), len(frame) + lost) + frame
    return data


@pytest.fixture(name="traces", scope="module")
def fixture_traces():
    world = Traces()
    yield world
    world.close()


@pytest.fixture(name="world")
def fixture_world(traces):
    """The world of the module, without services."""
    yield traces
    for each in traces.json("services", "list"):
        traces.ok("services", "del", each["service"])


def changes(trace):
    return {change["what"]: (change["before"], change["after"]) for change in trace["rewritten"]}


def test_new_flow(world):
    world.service()
    trace = world.trace(f"{CLIENT}:4242", VIP)
    backend = trace["backend"]["address"]
    assert trace["parsed"] == {"protocol": "tcp", "source": f"{CLIENT}:4242", "destination": "192.0.2.10:80",
                               "flags": "SYN", "ttl": 64, "fragment": False, "icmp_error": False}
    assert (trace["service"], trace["forward"], trace["scheduler"]) == (VIP, "nat", "maglev")
    assert trace["flow"] == {"known": False, "new": True, "kept": True, "before": None, "age": None, "after": "syn"}
    assert (trace["outcome"], trace["verdict"], trace["drop"], trace["reason"]) == ("forwarded", "tx", None, None)
    assert trace["backend"].items() >= {"weight": 1, "state": "active", "choice": "slot", "slots": 401}.items()
    assert trace["next_hop"] == {"device": "veth0", "mac": BACKENDS[backend.split(":")[0]], "kernel": False,
                                 "mtu": 1500}
    changed = changes(trace)
    assert changed["destination"] == ("192.0.2.10:80", backend) and changed["TTL"] == ("64", "63")
    assert changed["source"][0] == f"{CLIENT}:4242" and changed["source"][1].startswith("198.51.100.1:")
    assert f"{CLIENT}.4242 > 192.0.2.10.80: Flags [S], seq 1, options [mss 1460], length 0" in trace["packet"]
    assert f"> {backend.replace(':', '.')}: Flags [S]" in trace["becomes"]
    # Real packets go where it said, from any port.
    for port in range(5000, 5004):
        said = world.trace(f"{CLIENT}:{port}", VIP)["backend"]["address"]
        flows = world.backend(VIP, said)["flows"]
        world.send(world.frame(port, flags="S"))
        assert world.backend(VIP, said)["flows"] == flows + 1


def test_text(world):
    world.service(VIP, "--name", "hello")
    text = world.ok("trace", f"{CLIENT}:4242", VIP)
    steps = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert steps == ["packet", "device", "parsed", "service", "flow", "backend", "rewritten", "next", "becomes",
                     "verdict"]
    assert f"service     {VIP} hello: nat, maglev, 3 backends\n" in text
    assert "of 401 on the ring, by the client's address and port\n" in text
    assert "verdict     forwarded: out of veth0, where it came in\n" in text


def test_known_flow_and_its_reply(world, tmp_path):
    world.service(VIP, "--scheduler", "random")
    world.send(world.frame(flags="S"))
    (backend,) = [each["address"] for each in world.json("backends", "list") if each["flows"]]
    for _ in range(3):
        trace = world.trace(f"{CLIENT}:4242", VIP, "--flags", "ack")
        assert trace["flow"].items() >= {"known": True, "new": False, "before": "syn"}.items()
        assert (trace["backend"]["address"], trace["backend"]["choice"]) == (backend, "flow")
        assert trace["flow"]["age"] < 10 and trace["outcome"] == "forwarded"
    assert "known: syn, last packet" in world.ok("trace", f"{CLIENT}:4242", VIP, "--flags", "ack")

    node, port = changes(trace)["source"][1].split(":")
    reply = Ether(src=BACKENDS[backend.split(":")[0]], dst=world.mac) / IP(src=backend.split(":")[0], dst=node) / \
        TCP(sport=80, dport=int(port), flags="SA")
    trace = world.trace_frame(reply, tmp_path)
    assert changes(trace)["source"] == (backend, "192.0.2.10:80")
    assert changes(trace)["destination"] == (f"{node}:{port}", f"{CLIENT}:4242")
    assert trace["next_hop"]["mac"] == CLIENT_MAC and trace["flow"]["known"] and trace["outcome"] == "forwarded"


def test_refused(world):
    world.service(backends=[])
    trace = world.trace(f"{CLIENT}:4242", VIP)
    assert (trace["outcome"], trace["verdict"], trace["backend"]) == ("refused", "tx", None)
    assert trace["reason"] == "no backend takes new flows" and "Flags [R.]" in trace["becomes"]
    world.ok("backends", "add", VIP, "198.51.100.11")
    trace = world.trace(f"{CLIENT}:4242", VIP, "--flags", "ack,psh")
    assert trace["outcome"] == "refused" and trace["reason"] == "its flow is not known, and it begins none"
    assert "verdict     refused: its flow is not known" in world.ok("trace", f"{CLIENT}:4242", VIP, "--flags", "ack")


def test_not_ours(world, tmp_path):
    world.service()
    world.service("192.0.2.10:53/udp", backends=[])
    for vip, reason in (("192.0.2.10:81/tcp", "192.0.2.10 has services at"),
                        ("192.0.2.10:80/udp", "but not at 80/udp"),
                        ("192.0.2.11:80/tcp", "no VIP has the address 192.0.2.11")):
        trace = world.trace(f"{CLIENT}:4242", vip)
        assert (trace["outcome"], trace["verdict"], trace["service"]) == ("passed", "pass", None)
        assert reason in trace["reason"] and trace["becomes"] is None
    assert "none: 192.0.2.10 has services at" in world.ok("trace", f"{CLIENT}:4242", "192.0.2.10:81/tcp")
    for frame, reason in ((world.link() / ARP(), "only IPv4 and IPv6"),
                          (world.link() / IP(src=CLIENT, dst="192.0.2.10", proto=47), "it has no ports")):
        trace = world.trace_frame(frame, tmp_path)
        assert (trace["outcome"], trace["parsed"]) == ("passed", None) and reason in trace["reason"]


def test_drops(world, tmp_path):
    world.service(VIP, "--source-ranges", "203.0.113.0/24")
    trace = world.trace(f"{CLIENT}:4242", VIP)
    assert (trace["outcome"], trace["verdict"], trace["drop"]) == ("dropped", "drop", "source_range")
    assert "none of the service's source ranges" in trace["reason"]
    assert trace["backend"] is None and trace["becomes"] is None
    assert "dropped as source_range: the client is in none" in world.ok("trace", f"{CLIENT}:4242", VIP)
    assert world.trace("203.0.113.9:4242", VIP)["drop"] is None
    for frame, drop in ((world.link() / IP(src="192.0.2.10", dst="192.0.2.10") / TCP(dport=80), "bad_source"),
                        (world.link() / IP(src=CLIENT, dst="192.0.2.10", len=2000) / TCP(dport=80), "malformed")):
        assert world.trace_frame(frame, tmp_path)["drop"] == drop


def test_answers(world, tmp_path):
    world.service()
    trace = world.trace_frame(world.link() / IP(src=CLIENT, dst="192.0.2.10") / ICMP(id=7, seq=9) / Raw(b"x" * 56),
                              tmp_path)
    assert trace["outcome"] == "answered" and "ICMP echo reply, id 7, seq 9, length 64" in trace["becomes"]
    trace = world.trace_frame(world.link() / IP(src=CLIENT, dst="192.0.2.10", ttl=1) / TCP(dport=80), tmp_path)
    assert trace["outcome"] == "answered" and "ICMP time exceeded in-transit" in trace["becomes"]


def test_fragment_before_its_first(world, tmp_path):
    """tc would keep it; of what a trace shows, nothing is kept."""
    world.service(VIP)
    fragment = world.link() / IP(src=CLIENT, dst="192.0.2.10", proto=6, id=7, frag=100) / Raw(b"x" * 64)
    for _ in range(2):
        trace = world.trace_frame(fragment, tmp_path)
        assert (trace["outcome"], trace["verdict"], trace["drop"], trace["parsed"]) == ("kept", "pass", None, None)
    path = tmp_path / "frame.pcap"
    assert "kept by the tc program of the device, until its first fragment comes" in world.ok("trace", "--packet", str(path))


@pytest.mark.parametrize("forward", ["dnat", "l2", "ipip", "gue"])
def test_ways_of_forwarding(world, forward):
    world.service(VIP, "--forward", forward, "--mss", "1200")
    trace = world.trace(f"{CLIENT}:4242", VIP)
    backend, changed = trace["backend"]["address"].split(":")[0], changes(trace)
    assert (trace["forward"], trace["outcome"]) == (forward, "forwarded")
    assert changed["MSS"] == ("1460", "1200") and changed["TTL"] == ("64", "63")
    assert changed["MAC destination"] == (world.mac, BACKENDS[backend])
    assert ("destination" in changed) == (forward == "dnat")
    outer = changed.get("outer destination", (None, ""))[1]
    assert outer == {"ipip": backend, "gue": f"{backend}:6080"}.get(forward, "")
    inner = f": IP (ttl 63) {CLIENT}.4242 > 192.0.2.10.80: Flags [S]"
    assert (inner in trace["becomes"]) == (forward != "dnat")


def test_ipv6(world):
    world.service(VIP6, "--forward", "dnat", backends=["2001:db8:1::11"])
    trace = world.trace(f"[{CLIENT6}]:4242", VIP6)
    assert trace["outcome"] == "forwarded" and trace["next_hop"]["mac"] == "02:00:00:00:00:61"
    assert changes(trace)["destination"] == ("[2001:db8:2::10]:80", "[2001:db8:1::11]:80")
    assert f"IP6 (hlim 64) {CLIENT6}.4242 > 2001:db8:2::10.80: Flags [S]" in trace["packet"]
    world.send(world.link() / IPv6(src=CLIENT6, dst="2001:db8:2::10") / TCP(sport=4242, dport=80, flags="S"))
    assert world.trace(f"[{CLIENT6}]:4242", VIP6, "--flags", "ack")["flow"]["known"]


@pytest.mark.parametrize("scheduler, choice", [("maglev", "slot"), ("rr", "turn"), ("lc", "load"),
                                               ("random", "random"), ("source", "slot")])
def test_schedulers(world, scheduler, choice):
    world.service(VIP, "--scheduler", scheduler)
    trace = world.trace(f"{CLIENT}:4242", VIP)
    assert (trace["backend"]["choice"], trace["flow"]["new"]) == (choice, True)
    if scheduler == "source":
        places = {world.trace(f"{CLIENT}:{port}", VIP)["backend"]["slot"] for port in range(1000, 1003)}
        assert places == {trace["backend"]["slot"]}
    if scheduler == "rr":  # a trace takes nobody's turn
        assert world.trace(f"{CLIENT}:4243", VIP)["backend"] == trace["backend"]
        world.send(world.frame(flags="S"))
        assert world.trace(f"{CLIENT}:4243", VIP)["backend"]["slot"] == (trace["backend"]["slot"] + 1) % 3


def test_flows_from_before_a_change(world):
    """Of a service that keeps no flows: those on places that changed hands go where they went."""
    def element():
        dump = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/services"))
        return next((each["key"], bytes(int(byte, 16) for byte in each["value"])) for each in dump
                    if any(byte != "0x00" for byte in each["value"][:7]))

    world.service(VIP, "--forward", "ipip", backends=["198.51.100.11"])
    world.send(world.frame(1000, flags="S"))  # a service without traffic has no flows from before, and forgets
    before = element()[1][8:16]
    for backend in list(BACKENDS)[1:]:
        world.ok("backends", "add", VIP, backend)
    # As lbctl does it once all flows are where the ring says.
    key, value = element()
    changed = value[:16] + before + value[24:]
    world.run("bpftool", "map", "update", "pinned", f"{PIN_DIR}/services", "key", "hex", *[k[2:] for k in key], "value",
              *map(str, changed))
    seen = set()
    for port in range(1000, 1012):
        old, new = (world.trace(f"{CLIENT}:{port}", VIP, "--flags", flags)["backend"] for flags in ("ack", "syn"))
        assert old["address"] == "198.51.100.11:80" and new["choice"] == "slot"
        assert old["choice"] == ("slot" if new["address"] == old["address"] else "previous")
        seen.add(old["choice"])
    assert seen == {"slot", "previous"}


def test_affinity(world):
    world.service(VIP, "--scheduler", "random", "--affinity", "600")
    world.send(world.frame(1000, flags="S"))
    (backend,) = [each["address"] for each in world.json("backends", "list") if each["flows"]]
    for port in range(1001, 1004):
        found = world.trace(f"{CLIENT}:{port}", VIP)["backend"]
        assert (found["address"], found["choice"]) == (backend, "affinity")
    assert "(affinity of 600 s)" in world.ok("trace", f"{CLIENT}:1001", VIP)
    assert world.trace("198.51.100.8:1001", VIP)["backend"]["choice"] == "random"


def test_neighbour_that_is_not_known(world):
    world.service(backends=["198.51.100.99"])
    trace = world.trace(f"{CLIENT}:4242", VIP)
    assert trace["next_hop"] == {"device": "veth0", "mac": None, "kernel": True, "mtu": 1500}
    assert (trace["outcome"], trace["verdict"]) == ("forwarded", "pass")
    assert trace["becomes"].startswith("length ") and "MAC source" not in changes(trace)


@pytest.mark.parametrize("order, magic", [("<", 0xA1B2C3D4), (">", 0xA1B2C3D4), ("<", 0xA1B23C4D), (">", 0xA1B23C4D)])
def test_files_of_either_order(world, tmp_path, order, magic):
    world.service()
    path = tmp_path / "x.pcap"
    tagged = world.link() / Dot1Q(vlan=7) / IP(src=CLIENT, dst="192.0.2.10") / UDP(sport=1, dport=80) / Raw(b"x" * 9)
    path.write_bytes(pcap(tagged, order=order, magic=magic))
    trace = world.trace("-r", str(path))
    assert f"vlan 7, length 55: IP (ttl 64) {CLIENT}.1 > 192.0.2.10.80: UDP, length 9" in trace["packet"]


def test_several_packets_in_a_file(world, tmp_path):
    world.service()
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(world.frame(1), world.frame(2)))
    result = world.lbctl("trace", "-o", "json", "--packet", str(path))
    assert result.status == 0 and json.loads(result.out)["parsed"]["source"] == f"{CLIENT}:1"
    assert result.line == f"{path}: only the first packet is traced"


FRAME = Ether() / IP() / TCP()


@pytest.mark.parametrize("data, said", [
    (b"", "too short for a file of packets"), (b"x" * 100, "no file of packets (pcap)"),
    (b"\x0a\x0d\x0d\x0a" + b"x" * 100, "is pcapng; 'tcpdump -r"), (pcap(), "there is no packet in it"),
    (pcap(FRAME, link=113), "packets of link type 113, not of Ethernet (1)"),
    (pcap(FRAME)[:-1], "ends in the middle of a packet"), (pcap(FRAME)[:30], "there is no packet in it"),
    (pcap(FRAME, lost=9), "only 54 of 63 bytes of the packet were captured"),
    (pcap(b"x" * 13), "a packet of 13 bytes, not of 14 to 3520"),
    (pcap(b"x" * 3521), "a packet of 3521 bytes, not of 14 to 3520"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_files_that_are_none(traces, tmp_path, data, said):
    path = tmp_path / "x.pcap"
    path.write_bytes(data)
    line = traces.fails("trace", "--packet", str(path))
    assert line.startswith(f"{path}: ") and said in line


def test_from_a_pipe(world, tmp_path):
    """Where nothing can be read twice."""
    world.service()
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(world.frame(7)))
    with world.untouched():
        piped = json.loads(world.run("bash", "-ec", f"cat {path} | {LBCTL} trace --packet - -o json"))
    whole = world.trace("--packet", str(path))
    assert piped["parsed"]["source"] == f"{CLIENT}:7"
    assert [piped[what] for what in ("packet", "parsed", "service", "verdict")] == [whole[what] for what in ("packet", "parsed", "service", "verdict")]


def test_what_cannot_be_traced(traces, tmp_path):
    assert traces.fails("trace", "-r", str(tmp_path / "nothing")).endswith(": No such file or directory")
    assert traces.fails("trace", "1.2.3.4:5", VIP, "--device", "eth9") == "eth9: no such device"
    assert traces.fails("trace", "1.2.3.4:5", VIP, "--device", "veth1").startswith("veth1: xlb is not attached")
    assert "standard input: too short" in traces.fails("trace", "--packet", "-")
    assert run_lbctl("--pin-dir", "/sys/fs/bpf/nothing", "trace", "1.2.3.4:5", VIP).status == 1


@pytest.mark.parametrize("words, said", [
    ([], "SRC:PORT and ADDR:PORT/tcp|udp, or --packet, are missing"), (["1.2.3.4:5"], "are missing"),
    (["1.2.3.4", VIP], "1.2.3.4: no port given"), (["1.2.3.4:5", "1.2.3.4:5"], "no protocol given"),
    (["x:5", VIP], "x: not an IPv4 or IPv6 address"), (["1.2.3.4:0", VIP], "0: not a port"),
    (["1.2.3.4:5", VIP6], "1.2.3.4:5 is IPv4, but [2001:db8:2::10]:80/tcp is IPv6"),
    (["1.2.3.4:5", VIP, "x"], "unexpected 'x'"), (["1.2.3.4:5", VIP, "--packet", "f"], "'1.2.3.4:5' beside --packet"),
    (["--packet", "f", "--flags", "syn"], "--flags beside --packet"),
    (["1.2.3.4:5", VIP, "--flags", "syn,x"], "--flags 'x': not one of fin, syn"),
    (["1.2.3.4:5", VIP, "--flags", ""], "--flags '': not one of"),
    (["1.2.3.4:5", "1.2.3.4:5/udp", "-f", "syn"], "--flags syn: UDP has none"),
])
def test_usage(words, said):
    assert said in usage_error(run_lbctl("trace", *words))
