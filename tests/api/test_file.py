# SPDX-License-Identifier: GPL-2.0
"""`lbctl backends sync --from`: what is said of files that cannot be used, and the progress line."""

import json
import os
import pty
import resource
import select
import subprocess

import pytest

from world import LBCTL, lbctl, lbctl_json

VIP = "192.0.2.10:80/tcp"
SERVICE = {"kind": "Service", "metadata": {"name": "hello"}, "spec": {
    "type": "LoadBalancer", "ports": [{"port": 80}]}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}}
SLICE = {"kind": "EndpointSlice", "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "hello"}},
         "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]}
GOOD = json.dumps({"kind": "List", "items": [SERVICE, SLICE]})


def short(value):
    """A value in the name of a test: not a megabyte of it, and no NUL."""
    return "".join(letter for letter in str(value)[:40] if letter.isalnum() or letter == " ")


@pytest.fixture(name="file")
def make_file(cluster, tmp_path):
    """A file that was synced."""
    path = tmp_path / "list.json"
    path.write_text(GOOD)
    lbctl("backends", "sync", "--from", path)
    assert cluster.state() == {VIP: {"10.0.0.1:8080": "active"}}
    return path


@pytest.mark.every_run
def test_backends_become_those_of_the_file(cluster, tmp_path):
    path = tmp_path / "list.json"
    for addresses in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.3", "10.0.0.4"]):
        part = SLICE | {"endpoints": [{"addresses": [address]} for address in addresses]}
        path.write_text(json.dumps({"kind": "List", "items": [SERVICE, part]}))
        lbctl("backends", "sync", "--from", path)
        assert sorted(address for address, state in cluster.state()[VIP].items() if state == "active") == [
            f"{address}:8080" for address in addresses]


def of_two_namespaces(*addresses, kind="EndpointSlice", names=("hello", "other"), namespaces=("a", "b")):
    """A Service for each of these names in each of the namespaces, with these endpoints."""
    items = []
    for place, namespace in enumerate(namespaces):
        for last, name in enumerate(names):
            metadata = {"name": name, "namespace": namespace}
            vip = f"192.0.2.{10 * place + last + 10}"
            items.append(SERVICE | {"metadata": metadata, "status": {"loadBalancer": {"ingress": [{"ip": vip}]}}})
            ends = [{"name": "", "port": 8080}]
            items.append({"kind": "Endpoints", "metadata": metadata, "subsets": [
                {"addresses": [{"ip": address} for address in addresses], "ports": ends}]} if kind == "Endpoints" else
                SLICE | {"metadata": metadata | {"labels": {"kubernetes.io/service-name": name}},
                         "endpoints": [{"addresses": [address]} for address in addresses]})
    return json.dumps({"kind": "List", "items": items})


@pytest.mark.parametrize("kind", ["EndpointSlice", "Endpoints"])
@pytest.mark.parametrize("scope, places", [(["--namespace", "b"], (20, 21)), (["--service", "b/hello"], (20,))])
def test_scope(cluster, kind, scope, places):
    """Of a file that holds more, only this; what is there of the rest stays as it is."""
    def sync(text, *options):
        assert lbctl("backends", "sync", "--from", "-", *options, text_in=text).stderr == ""
        return {vip.split(":")[0]: [address.split(":")[0] for address, state in backends.items() if state == "active"]
                for vip, backends in cluster.state().items()}

    ours = [f"192.0.2.{place}" for place in places]
    assert sync(of_two_namespaces("10.0.0.1", kind=kind), *scope) == {vip: ["10.0.0.1"] for vip in ours}
    everything = sync(of_two_namespaces("10.0.0.2", kind=kind))
    assert sorted(everything) == ["192.0.2.10", "192.0.2.11", "192.0.2.20", "192.0.2.21"]
    assert sync(of_two_namespaces("10.0.0.3", kind=kind), *scope) == everything | {vip: ["10.0.0.3"] for vip in ours}
    left = {vip: backends for vip, backends in everything.items() if vip not in ours}
    assert sync(of_two_namespaces("10.0.0.4", kind=kind, namespaces=("a",)), *scope) == left


@pytest.mark.parametrize("text, complaint", [
    ("", "it is empty"),
    (GOOD[:-1], "it ends in the middle of a value"),
    (GOOD[:100], "it ends in the middle of a value"),
    (GOOD + "}", "not JSON"),
    (GOOD + "\0", "not JSON"),
    (GOOD.replace("hello", "he\\u0000llo"), "is no name"),
    ("<html></html>", "not JSON"),
    ("[" * 1000000, "nested more than 64 deep"),
    ('{"kind":"List","kind":"List","items":[]}', 'key "kind" is there twice'),
    ('{"kind":"List"}', "items: a list is expected, and nothing is there"),
    ('{"kind":"List","items":null}', "items: a list is expected"),
    ('{"kind":"PodList","items":[]}', 'kind "PodList" is no list of Services'),
    ('{"kind":"ConfigMap","metadata":{"name":"a"}}', 'kind "ConfigMap" is none of Service'),
    (GOOD.replace("80}", "80000}"), "port: 80000 is not in 1..65535"),
    (GOOD.replace("80}", "1e400}"), "number 1e400 is out of range"),
    (GOOD.replace("80}", '"80"}'), "port: a whole number is expected, this is a string"),
    (GOOD.replace('["10.0.0.1"]', "null"), "addresses[0]: a string is expected"),
    (GOOD.replace("192.0.2.10", "192.0.2"), '"192.0.2" is no IP address'),
], ids=short)
def test_bad_files(cluster, file, text, complaint):
    state = cluster.state()
    file.write_text(text)
    result = lbctl("backends", "sync", "--from", file, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"lbctl: {file}: ") and result.stderr.count("\n") == 1
    assert complaint in result.stderr
    assert cluster.state() == state


@pytest.mark.heavy
@pytest.mark.parametrize("start, filling, end, complaint", [
    ('{"kind":"', "x", '"}', "a value of more than 16 MB"),
    ('{"kind":"List","items":[', " ", "]", "a value of more than 16 MB"),
    ('{"kind":"List","items":[{"a":[', '{"b":[]},', "1]}]}", "an object of more than 16 MB"),
    ('{"kind":"List","items":[', '{"kind":"Secret"},', "1]}", 'kind "Secret" is none of'),
], ids=short)
def test_100_mb_of_nonsense(cluster, file, start, filling, end, complaint):
    """In little memory."""
    state = cluster.state()
    with open(file, "w", encoding="ascii") as stream:
        stream.write(start)
        block = filling * (1000000 // len(filling))
        for _ in range(100):
            stream.write(block)
        stream.write(end)
    limit = 400 << 20  # of addresses: libraries, stacks and mapped maps are in there
    result = subprocess.run([LBCTL, "backends", "sync", "--from", file], text=True, capture_output=True, check=False,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
    file.unlink()  # pytest would keep it for days
    assert result.returncode == 1 and complaint in result.stderr, result.stderr
    assert cluster.state() == state


def test_standard_input(cluster):
    assert "3 backends" not in lbctl("backends", "sync", "--from", "-", text_in=GOOD).stdout
    assert cluster.state() == {VIP: {"10.0.0.1:8080": "active"}}
    result = lbctl("backends", "sync", "--from", "-", text_in="{", check=False)
    assert result.stderr == "lbctl: standard input: byte 1: it ends in the middle of a value\n"


def test_dry_run_with_nothing_attached(file):
    result = lbctl("--pin-dir", "/sys/fs/bpf/nothing", "backends", "sync", "--from", file, "--dry-run")
    assert result.stdout == f"default/hello:80  +1 -0  1 backends  new {VIP}\n"
    result = lbctl("--pin-dir", "/sys/fs/bpf/nothing", "backends", "sync", "--from", file, check=False)
    assert result.returncode == 1 and "lbctl attach" in result.stderr


def test_progress_on_a_terminal(cluster):
    """Shown after a while, and wiped away before the first line."""
    master, terminal = pty.openpty()
    process = subprocess.Popen([LBCTL, "backends", "sync", "--from", "-"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    # Byte by byte, until it shows: a slow machine may need long to start it.
    pieces = iter(GOOD.encode())
    while not select.select([master], [], [], 0.1)[0]:
        process.stdin.write(bytes([next(pieces)]))
        process.stdin.flush()
    process.stdin.write(bytes(pieces))
    process.stdin.flush()
    assert b"1 backends" in process.communicate(timeout=10)[0]
    seen = b""
    while select.select([master], [], [], 1)[0]:
        try:
            seen += os.read(master, 4096)
        except OSError:  # the other end is closed, and all is read
            break
    os.close(master)
    seen = seen.decode()
    assert seen.startswith("\rstandard input: 0 objects, 0.0 MB\033[K") and seen.endswith("\r\033[K")
    assert cluster.addresses() == ["10.0.0.1"]


WISHES = {"sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["10.0.0.1/8", " 192.0.2.0/24"]}


def test_wishes_of_a_service(cluster, file):
    """They come to the maps, and a sync that finds them there says nothing."""
    wishes = {"metadata": {"name": "hello", "annotations": {
        "xlb.dev/scheduler": "lc", "xlb.dev/mss": "1400", "xlb.dev/echo": "off"}}, "spec": SERVICE["spec"] | WISHES}
    file.write_text(json.dumps({"kind": "List", "items": [SERVICE | wishes, SLICE]}))
    result = lbctl("backends", "sync", "--from", file)
    assert result.stderr == "" and result.stdout.count("\n") == 1
    shown = lbctl_json("services", "show", VIP)
    assert (shown["scheduler"], shown["affinity"], shown["mss"], shown["echo"]) == ("lc", 10800, 1400, False)
    assert sorted(shown["source_ranges"]) == ["10.0.0.0/8", "192.0.2.0/24"]
    assert lbctl("backends", "sync", "--from", file).stdout == ""
    # Nobody of this family: said, and found again as it is.
    wishes["spec"] = wishes["spec"] | {"loadBalancerSourceRanges": ["2001:db8::/32", "x"]}
    file.write_text(json.dumps({"kind": "List", "items": [SERVICE | wishes, SLICE]}))
    warnings = lbctl("backends", "sync", "--from", file).stderr
    assert '"x" cannot be understood' in warnings and "nobody is let in" in warnings
    assert "nobody is let in" in lbctl("services", "show", VIP).stdout
    assert lbctl("backends", "sync", "--from", file).stdout == ""
    file.write_text(GOOD)
    lbctl("backends", "sync", "--from", file)
    assert lbctl_json("services", "show", VIP)["source_ranges"] == []
    assert cluster.state() == {VIP: {"10.0.0.1:8080": "active"}}


def test_default_forwarding(cluster, file):
    """--forward is for Services that can have it; the others get nat, with a line."""
    result = lbctl("backends", "sync", "--from", file, "--forward", "ipip")
    assert "192.0.2.10:80/tcp: ipip keeps the port, but endpoints have port 8080: nat is used" in result.stderr
    assert lbctl_json("services", "show", VIP)["forward"] == "nat"
    file.write_text(GOOD.replace("8080", "80"))
    assert lbctl("backends", "sync", "--from", file, "--forward", "ipip").stderr == ""
    assert lbctl_json("services", "show", VIP)["forward"] == "ipip"
    assert cluster.state() == {VIP: {"10.0.0.1:80": "active"}}


@pytest.fixture(name="large")
def make_large(node):
    """Maps with room for much, on the other end of the link."""
    pins = ["--pin-dir", "/sys/fs/bpf/large"]
    lbctl(*pins, "attach", "outside", "--max-flows", "1024")
    yield lambda *words, **more: lbctl(*pins, *words, **more)
    lbctl(*pins, "detach", "--all")


def test_512_ports_in_one_service(large):
    numbers = range(1000, 1512)
    ports = [{"name": f"p{number}", "port": number} for number in numbers]
    service = SERVICE | {"spec": {"type": "LoadBalancer", "ports": ports}}
    endpoints = SLICE | {"ports": ports, "endpoints": [{"addresses": [f"10.0.0.{last}"]} for last in (1, 2, 3)]}
    text = json.dumps({"kind": "List", "items": [service, endpoints]})
    result = large("backends", "sync", "--from", "-", text_in=text)
    assert result.stderr == "" and result.stdout.count("\n") == 512
    shown = json.loads(large("services", "list", "-o", "json").stdout)
    assert [each["service"] for each in shown] == [f"192.0.2.10:{number}/tcp" for number in numbers]
    assert {each["backends"] for each in shown} == {3}
    assert large("backends", "sync", "--from", "-", text_in=text).stdout == ""


def test_5000_backends_in_one_service(large):
    def endpoints(n):
        slices = [SLICE | {"metadata": {"name": f"s{first}", "labels": {"kubernetes.io/service-name": "hello"}},
                           "endpoints": [{"addresses": [f"10.0.{i // 250}.{i % 250 + 1}"]}
                                         for i in range(first, min(first + 100, n))]} for first in range(0, n, 100)]
        return json.dumps({"kind": "List", "items": [SERVICE, *slices]})

    assert "+5000 -0  5000 backends" in large("backends", "sync", "--from", "-", text_in=endpoints(5000)).stdout
    addresses = {each["address"] for each in json.loads(large("backends", "list", "-o", "json").stdout)}
    assert len(addresses) == 5000 and "10.0.19.250:8080" in addresses
    assert "+0 -1  4999 backends" in large("backends", "sync", "--from", "-", text_in=endpoints(4999)).stdout


@pytest.mark.parametrize("options, token", [
    (["--vips", "loadbalancer,x"], "'x' is none of"), (["--vips", ""], "--vips"),
    (["--node-address", "10.0.0.1,x"], "x"), (["--namespace", "a/b"], "'a/b' is no namespace"),
    (["--service", "a"], "'a' is no NAMESPACE/NAME"), (["--service", "a/b/c"], "'a/b/c' is no"),
    (["--service", "a/b", "--namespace", "c"], "--service a/b is not in --namespace c"),
    (["--forward", "x"], "x"), (["--scheduler", "x"], "x"), (["--request-timeout", "0"], "0"),
    (["--watch-timeout", "1d"], "1d"), (["--from", "a", "--watch"], "--from cannot be watched"),
    (["--from", "a", "--kubeconfig", "b"], "--from needs no --kubeconfig"), (["x"], "unexpected 'x'"),
])
def test_usage(node, options, token):
    result = lbctl("backends", "sync", *options, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert token in result.stderr and result.stderr.count("\n") == 1
    assert "try 'lbctl backends sync --help'" in result.stderr
