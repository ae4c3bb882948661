# SPDX-License-Identifier: GPL-2.0
"""What users of a service see: rotation, refusal, scaling, drain, counters, and a load balancer that does not need lbctl."""

import json
import random
import subprocess
import time

import features
import pytest
import world

TRAFFIC = world.TOP / "tests/lib/traffic.py"
VIPS = {4: "203.0.113.10", 6: "2001:db8:99::10"}


@pytest.fixture
def three(net):
    places = [net.neighbour(number, f"eth{number}") for number in (1, 2, 3)]
    net.attach("eth0", "eth1", "eth2", "eth3")
    return places


def names(answers):
    return [answer.get("name") for answer in answers]


def test_round_robin_rotates_exactly(net, three):
    net.serve(three, scheduler="rr")
    order = names(net.ask("tcp", 4, 9, 10))
    assert sorted(order[:3]) == ["b1", "b2", "b3"] and order == order[:3] * 3


def test_maglev_spreads(net, three):
    net.serve(three)
    chosen = names(net.ask("tcp", 4, 60, 10))
    assert all(chosen.count(name) >= 8 for name in ("b1", "b2", "b3")), chosen


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("protocol", ("tcp", "udp"))
def test_refused_at_once_without_endpoints(net, family, protocol):
    net.attach("eth0")
    net.serve([], family, protocol)
    answers = net.ask(protocol, family, 3, 10)
    assert [answer.get("error") for answer in answers] == ["ConnectionRefusedError"] * 3
    # A SYN is sent again after a second.
    assert all(answer["ms"] < 900 for answer in answers), answers


def test_weight_0_takes_no_new_flows(net, three):
    key = net.serve(three, scheduler="rr")
    world.lbctl("backends", "set", key, "10.0.2.2:8080", "--weight", "0")
    assert sorted(set(names(net.ask("tcp", 4, 6, 10)))) == ["b1", "b3"]


def open_connection(net):
    """A connection from the client that stays open: a process that sends a line when told to, and says what came back."""
    program = ("import json,socket,sys\n"
               f"c = socket.create_connection(('203.0.113.10', {80}), 5)\n"
               "c.settimeout(5)\n"
               "f = c.makefile('rwb')\n"
               "f.write((1 << 20).to_bytes(8, 'big')); f.flush()\n"
               "print('open', flush=True)\n"
               "for line in sys.stdin:\n"
               "    f.write(b'x' * (1 << 19)); f.flush()\n"
               "    print('sent', flush=True)\n"
               "    if line == 'last\\n':\n"
               "        print(json.loads(f.readline())['name'], len(f.read(1 << 20)), flush=True)\n")
    process = subprocess.Popen([*net.client.enter(), "/usr/bin/python3", "-c", program], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "open\n"
    return process


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_open_connections_survive_scaling_and_drain(net, three):
    key = net.serve(three[:1])
    process = open_connection(net)
    assert tell(process, "half") == "sent"
    for command in (("add", "10.0.2.2:8080"), ("add", "10.0.3.2:8080"), ("drain", "10.0.1.2:8080")):
        world.lbctl("backends", command[0], key, command[1])
    assert set(names(net.ask("tcp", 4, 40, 10))) == {"b2", "b3"}   # one chance in 2^39 that not
    assert tell(process, "last") == "sent"
    assert process.stdout.readline().strip() == f"b1 {1 << 20}"
    process.stdin.close()
    assert process.wait(5) == 0


def test_connections_to_a_removed_backend_are_reset(net, three):
    key = net.serve(three[:1])
    process = open_connection(net)
    world.lbctl("backends", "del", key, "10.0.1.2:8080")
    start = time.monotonic()
    tell(process, "half")
    try:
        tell(process, "last")
    except BrokenPipeError:
        pass    # it ended at the first write already
    assert process.wait(5) != 0 and time.monotonic() - start < 3


def backend_stats():
    dump = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned",
                                f"{world.PIN_DIR}/backend_stats").stdout)
    return [entry["formatted"]["values"] for entry in dump]


def test_counters_agree_with_connections(net, three):
    """bpftool, the iterator and lbctl show the same, and it is what the client did."""
    key = net.serve(three, scheduler="rr")
    net.ask("tcp", 4, 9, 10)
    world.wait_for(lambda: sum(entry["flows"] for entry in world.lbctl_json("backends", "list")) == 9,
                   2, "the counters")
    listed = {entry["address"]: entry for entry in world.lbctl_json("backends", "list")}
    assert [entry["flows"] for entry in listed.values()] == [3, 3, 3]
    world.wait_for(lambda: sorted(sum(cpu["value"]["flows"] for cpu in cpus) for cpus in backend_stats()) == [3, 3, 3],
                   2, "bpftool's dump to show the flows")
    packets = sorted(sum(cpu["value"]["to_backend"]["packets"] for cpu in cpus) for cpus in backend_stats())
    assert packets == sorted(entry["packets"] for entry in listed.values())
    (service,) = world.lbctl_json("services", "list")
    assert service["service"] == key and service["flows"] == 9
    assert service["packets"] == sum(entry["packets"] for entry in listed.values())
    if missing := features.no_iterators():
        pytest.skip(missing)
    table = [line.split() for line in
             world.run("cat", f"{world.PIN_DIR}/counters").stdout.splitlines()[1:]]
    assert {row[1]: int(row[5]) for row in table} == {name: 3 for name in listed}
    assert {row[1]: int(row[3]) for row in table} == {name: entry["packets"]
                                                      for name, entry in listed.items()}


def test_lbctl_killed_at_any_time_leaves_forwarding(net, three):
    """SIGKILL in the middle of changes, 40 times: every request is answered meanwhile, and the next command works."""
    key = net.serve(three, scheduler="rr")
    asking = net.client.start("/usr/bin/python3", TRAFFIC, "tcp", "203.0.113.10", 80, 400, 10,
                              stdout=subprocess.PIPE)
    generator = random.Random(1)
    for number in range(40):
        change = (["add", key, "10.0.3.3:8080", "--weight", "0"], ["del", key, "10.0.3.3:8080"])[number % 2]
        process = subprocess.Popen([world.LBCTL, "backends", *change], stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        process.wait()
    answers = [json.loads(line) for line in asking.communicate(timeout=120)[0].splitlines()]
    assert len(answers) == 400 and all("name" in answer for answer in answers), answers
    world.lbctl("backends", "del", key, "10.0.3.3:8080", check=False)
    assert sorted(entry["address"] for entry in world.lbctl_json("backends", "list")) == \
        ["10.0.1.2:8080", "10.0.2.2:8080", "10.0.3.2:8080"]
    order = names(net.ask("tcp", 4, 6, 10))
    assert order[:3] == order[3:] and len(set(order)) == 3


def gone(program):
    return world.run("bpftool", "prog", "show", "id", program, check=False).returncode != 0


def test_detach_leaves_nothing_behind(net):
    place = net.neighbour(1, "eth1")
    net.attach("eth0")
    ours = [json.loads(world.run("bpftool", "-j", "prog", "show", "pinned", f"{world.PIN_DIR}/{pin}").stdout)["id"]
            for pin in ("xdp", "tc_ingress", "tc_egress")]
    net.serve([place])
    assert net.ask("tcp", 4, 1, 10)[0]["name"] == "b1"
    world.lbctl("detach", "--all")
    world.wait_for(lambda: all(map(gone, ours)), 3, "the kernel to free the programs")
    for device in ("eth0", "eth1"):
        assert "xdp" not in world.run("ip", "link", "show", device).stdout
        assert "clsact" not in world.run("tc", "qdisc", "show", "dev", device).stdout
    assert "xlb" not in world.run("ls", "/sys/fs/bpf").stdout.split()


def test_udp_of_a_dead_backend_moves_on(net, three):
    """UDP flows pinned to an endpoint that is gone are let go at once; when the last one goes, too: its client is told."""
    key = net.serve(three[:2], protocol="udp", scheduler="rr")
    client = ("import errno,json,socket,sys\n"
              "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
              "s.settimeout(3); s.connect(('203.0.113.10', 80))\n"
              "for _ in sys.stdin:\n"
              "    try: s.send(b'x'); print(json.loads(s.recv(999))['name'], flush=True)\n"
              "    except OSError as error: print(errno.errorcode.get(error.errno, error), flush=True)\n")
    process = subprocess.Popen([*net.client.enter(), "/usr/bin/python3", "-c", client], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first = tell(process, "x")
    assert tell(process, "x") == first
    addresses = {"b1": "10.0.1.2:8080", "b2": "10.0.2.2:8080"}
    world.lbctl("backends", "del", key, addresses.pop(first))
    (second,) = addresses
    assert tell(process, "x") == second
    world.lbctl("backends", "del", key, addresses[second])
    assert tell(process, "x") == "ECONNREFUSED"
    process.kill()


def test_attach_again_and_a_new_lbctl_keep_connections(net, three):
    """Attaching what is attached, as an upgrade of lbctl does, is not noticed by open connections."""
    key = net.serve(three[:1])
    process = open_connection(net)
    assert tell(process, "half") == "sent"
    net.attach("eth0", "eth1", "eth2", "eth3")
    world.lbctl("services", "set", key, "--scheduler", "rr")
    assert tell(process, "last") == "sent"
    assert process.stdout.readline().strip() == f"b1 {1 << 20}"


@pytest.mark.heavy
def test_many_clients_at_once(net, three):
    """Eight clients' processes, 100 connections each, over both families: all intact, and each counted once."""
    for family in (4, 6):
        net.serve(three, family, scheduler="rr")
    asking = [net.client.start("/usr/bin/python3", TRAFFIC, "tcp", VIPS[family], 80, 100, 2000, stdout=subprocess.PIPE)
              for family in (4, 6) for _ in range(4)]
    for process in asking:
        answers = [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]
        assert len(answers) == 100 and all(answer.get("intact") for answer in answers), answers
    services = world.lbctl_json("services", "list")
    assert [service["flows"] for service in services] == [400, 400]
    for service in services:
        flows = [entry["flows"] for entry in world.lbctl_json("backends", "list", service["service"])]
        assert max(flows) - min(flows) <= 1, flows


@pytest.mark.parametrize("family", (4, 6))
def test_two_services_over_the_same_backends(net, three, family):
    """Replies find their way back to the VIP that was asked, whichever of several it was."""
    for port in (80, 81, 82):
        net.serve(three, family, port=port, scheduler="rr")
    for port in (82, 80, 81):
        assert sorted(names(net.ask("tcp", family, 3, 100, port=port))) == ["b1", "b2", "b3"]


def test_what_is_not_ours_is_not_touched(net, three):
    """ping, traceroute's UDP, and the node's own services work beside a VIP."""
    net.serve(three)
    net.client.sh("ping -c 3 -i 0.2 -W 2 192.0.2.1; ping -c 3 -i 0.2 -W 2 2001:db8:c::1; ping -c 1 -W 2 10.0.1.2;"
                  "ping -c 1 -W 2 -s 4000 10.0.1.2")
    server = world.NODE.start("/usr/bin/python3", TRAFFIC, "serve", "node", 9000, stdout=-1)
    assert server.stdout.readline() == "ready\n"
    result = net.client.run("/usr/bin/python3", TRAFFIC, "tcp", "192.0.2.1", 9000, 1, 1_000_000)
    assert json.loads(result.stdout)["intact"]
    server.kill()
    assert all(service["flows"] == 0 for service in world.lbctl_json("services", "list"))


def test_detach_lets_connections_go(net, three):
    """After detach the VIP is nobody's: no answer of ours, and the kernel routes as before."""
    net.serve(three)
    assert names(net.ask("tcp", 4, 1, 10))[0]
    world.lbctl("detach", "eth0")
    answers = net.client.run("curl", "-s", "-m", "1", "http://203.0.113.10/", check=False)
    assert answers.returncode != 0
    net.client.sh("ping -c 1 -W 2 10.0.1.2")
    net.attach("eth0")
    assert names(net.ask("tcp", 4, 1, 10))[0]
