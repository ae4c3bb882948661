# SPDX-License-Identifier: GPL-2.0
"""`lbctl backends sync` without --watch: what it takes from a server that works, and what it says of one that does not."""

import json
import time

import pytest

from apiserver import Answer, ApiServer
from conftest import as_json
from world import lbctl, lbctl_json

VIP = "192.0.2.10:80/tcp"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICES = "/api/v1/services"


def test_says_what_it_did(cluster):
    cluster.service()
    cluster.slice("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert cluster.sync().stdout == f"default/hello:80  +3 -0  3 backends  new {VIP}\n"
    assert cluster.state() == {VIP: {f"10.0.0.{n}:8080": "active" for n in (1, 2, 3)}}
    services = lbctl_json("services", "list")
    assert (services[0]["owner"], services[0]["name"]) == ("kubernetes", "default/hello:http")
    assert cluster.sync().stdout == ""
    cluster.slice("10.0.0.3", "10.0.0.4")
    assert cluster.sync("--dry-run").stdout == "default/hello:80  +1 -2  2 backends\n"
    assert cluster.addresses() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert cluster.sync().stdout == "default/hello:80  +1 -2  2 backends\n"
    cluster.server.delete("services", "hello")
    assert cluster.sync().stdout == f"default/hello:http  +0 -2  0 backends  gone {VIP}\n"
    assert not cluster.state()


def test_json(hello):
    hello.slice("10.0.0.2")
    assert as_json(hello.sync("-o", "json").stdout) == [
        {"service": VIP, "name": "default/hello:http", "action": "change", "added": 0, "removed": 1, "changed": 0,
         "backends": 1, "active": 1, "draining": 0, "down": 0, "dry_run": False}]


def test_states(hello):
    item = hello.slice("10.0.0.1", "10.0.0.2", "10.0.0.3")
    for endpoint, serving in zip(item["endpoints"][1:], (True, False)):
        endpoint["conditions"] = {"ready": False, "serving": serving, "terminating": True}
    hello.server.put("endpointslices", item)
    assert hello.sync().stdout == "default/hello:80  +1 -0 ~1  1 backends, 1 draining, 1 down\n"
    assert hello.state() == {VIP: {"10.0.0.1:8080": "active", "10.0.0.2:8080": "draining", "10.0.0.3:8080": "down"}}


def test_pages(cluster):
    for number in range(40):
        cluster.service(f"s{number}", f"192.0.2.{number + 1}")
    for number in range(1200):
        cluster.slice(f"10.1.{number >> 8}.{number & 255}", service="other", name=f"other-{number}")
    cluster.slice("10.0.0.1", service="s7")
    cluster.sync()
    assert len(cluster.state()) == 40
    assert cluster.addresses("192.0.2.8:80/tcp") == ["10.0.0.1"]
    assert cluster.server.count("limit=500") == 4
    assert cluster.server.count("continue=500") == 1 and cluster.server.count("continue=1000") == 1


@pytest.mark.parametrize("versions, said", [(["v1beta1", "v1"], "discovery.k8s.io/v1 "),
                                            (["v1", "v1beta1"], "discovery.k8s.io/v1 "),
                                            (["v1beta1"], "discovery.k8s.io/v1beta1 "), ([], "core/v1 endpoints")])
def test_which_api(cluster, versions, said):
    cluster.server.versions = versions
    cluster.service()
    cluster.slice("10.0.0.1")
    cluster.server.put("endpoints", {"metadata": {"name": "hello"}, "subsets": [
        {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "http", "port": 8080}]}]})
    assert f"endpoints come from {said}" in cluster.sync("-v").stderr
    assert cluster.addresses() == (["10.0.0.1"] if versions else ["10.0.0.2"])


def test_scope(hello):
    hello.service("web", "192.0.2.20", namespace="prod")
    hello.slice("10.0.1.1", service="web", namespace="prod")
    hello.service("db", "192.0.2.21", namespace="prod")
    hello.sync()
    state = hello.state()
    assert len(state) == 3
    hello.server.delete("services", "hello")
    hello.server.delete("services", "db", "prod")
    hello.server.requests.clear()
    assert hello.sync("--service", "prod/web").stdout == ""
    assert hello.server.count("/api/v1/namespaces/prod/services?fieldSelector=metadata.name%3Dweb") == 1
    assert hello.server.count("/namespaces/prod/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweb") == 1
    assert hello.state() == state
    assert hello.sync("--namespace", "prod").stdout == "prod/db:http  +0 -0  0 backends  gone 192.0.2.21:80/tcp\n"
    assert VIP in hello.state()
    hello.sync()
    assert list(hello.state()) == ["192.0.2.20:80/tcp"]


def test_other_owners_are_left_alone(cluster):
    lbctl("services", "add", VIP)
    lbctl("backends", "add", VIP, "10.9.9.9:1")
    cluster.service()
    cluster.slice("10.0.0.1")
    result = cluster.sync()
    assert result.stderr == f"lbctl: default/hello:http: {VIP} is there already, and belongs to cli: left alone\n"
    assert cluster.state() == {VIP: {"10.9.9.9:1": "active"}}
    lbctl("services", "del", VIP)
    cluster.sync()
    assert cluster.addresses() == ["10.0.0.1"]


def test_a_file_and_a_cluster_do_not_meet(hello, tmp_path):
    path = tmp_path / "list.json"
    path.write_text('{"kind":"List","items":[{"kind":"Service","metadata":{"name":"f"},"spec":{"type":"LoadBalancer",'
                    '"ports":[{"port":80}]},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.77"}]}}}]}')
    lbctl("backends", "sync", "--from", path)
    assert sorted(hello.state()) == [VIP, "192.0.2.77:80/tcp"]
    hello.sync()
    assert sorted(hello.state()) == [VIP, "192.0.2.77:80/tcp"]
    path.write_text('{"kind":"Service","metadata":{"name":"kubernetes"},"spec":{"type":"ClusterIP","clusterIP":"10.96.0.1"}}')
    lbctl("backends", "sync", "--from", path)
    assert sorted(hello.state()) == [VIP]


def test_an_empty_list_removes_nothing(hello, tmp_path):
    """kubectl prints one, too, when the server did not let it read anything."""
    path = tmp_path / "list.json"
    items = [{"kind": kind} | item for kind, name in (("Service", "services"), ("EndpointSlice", "endpointslices"))
             for item in hello.server.objects[name].values()]
    lbctl("services", "del", VIP, "--force")
    path.write_text(json.dumps({"kind": "List", "items": items}))
    lbctl("backends", "sync", "--from", path)
    state = hello.state()
    path.write_text('{"apiVersion":"v1","items":[],"kind":"List","metadata":{"resourceVersion":""}}')
    result = lbctl("backends", "sync", "--from", path)
    assert result.stdout == "" and "neither Services nor endpoints are in it: nothing is removed" in result.stderr
    assert hello.state() == state and state


def test_nul_in_what_nobody_looks_at(cluster):
    """Who may write an annotation does not stop what all others wait for."""
    service = cluster.service("other", "192.0.2.11")
    service["metadata"]["annotations"] = {"note": "a\0b", "xlb.dev/scheduler": "r\0r"}
    cluster.server.put("services", service)
    cluster.service()
    cluster.slice("10.0.0.1")
    result = cluster.sync()
    assert cluster.addresses() == ["10.0.0.1"]
    assert "xlb.dev/scheduler" in result.stderr and result.stderr.count("\n") == 1


def test_zeros_in_front(cluster):
    """The API has let them pass, and kube-proxy reads them as decimal."""
    cluster.service(loadBalancerSourceRanges=["198.051.100.000/24"], externalIPs=["203.0.113.009"])
    cluster.slice("10.0.0.1", "10.0.00.002")
    result = cluster.sync("--vips", "loadbalancer,external")
    assert not result.stderr
    assert sorted(cluster.state()) == [VIP, "203.0.113.9:80/tcp"] and cluster.addresses() == ["10.0.0.1", "10.0.0.2"]
    assert lbctl_json("services", "show", VIP)["source_ranges"] == ["198.51.100.0/24"]


def test_services_without_endpoints_keep_their_backends(hello, tmp_path):
    path = tmp_path / "services.json"
    services = [{"kind": "Service"} | item for item in hello.server.objects["services"].values()]
    slices = [{"kind": "EndpointSlice"} | item for item in hello.server.objects["endpointslices"].values()]
    lbctl("services", "del", VIP, "--force")
    path.write_text(json.dumps({"kind": "List", "items": services + slices}))
    lbctl("backends", "sync", "--from", path)
    state = hello.state()
    path.write_text(json.dumps({"kind": "List", "items": services}))
    result = lbctl("backends", "sync", "--from", path)
    assert "nothing is removed" in result.stderr
    assert hello.state() == state and state


def test_map_full_names_the_map_and_keeps_what_was(hello):
    hello.service("big", "192.0.2.30")
    hello.slice(*[f"10.2.{n >> 8}.{n & 255}" for n in range(300)], service="big")
    result = hello.sync(check=False)
    assert result.returncode == 1
    assert "default/big:80: 192.0.2.30:80/tcp: " in result.stderr and "--max-backends" in result.stderr
    assert hello.addresses() == ["10.0.0.1", "10.0.0.2"]


def test_bad_object_is_ignored_and_its_last_state_stays(hello):
    hello.service("other", "192.0.2.40")
    hello.slice("10.0.0.300")
    result = hello.sync(check=False)
    assert result.returncode == 1
    assert result.stderr == ('lbctl: EndpointSlice default/hello-1: endpoints[0]: addresses[0]: "10.0.0.300" is no IPv4 '
                             "address: ignored\n")
    assert sorted(hello.state()) == [VIP, "192.0.2.40:80/tcp"]


# --- servers that do not work: one line, status 1, and nothing changes ---

@pytest.mark.parametrize("answer, complaint", [
    (Answer(403, json.dumps({"kind": "Status", "message": 'services is forbidden: User "x" cannot list resource '
                                                          '"services" in API group ""'})),
     'not allowed to list /api/v1/services: services is forbidden: User "x" cannot list resource "services"'),
    (Answer(403, "<html>"), "403: not allowed to list /api/v1/services: Forbidden"),
    (Answer(404), "404 to /api/v1/services: NotFound"),
    (Answer(500), "500 to /api/v1/services: InternalError"),
    (Answer(500, "x" * 100000), "500 to /api/v1/services"),
    (Answer(503), "503 to /api/v1/services: ServiceUnavailable"),
    (Answer(302, headers={"Location": "https://192.0.2.1/"}), "302 to /api/v1/services"),
    (Answer(200, "<html>hello"), "services: byte 1: not JSON"),
    (Answer(200, ""), "services: the answer is empty"),
    (Answer(200, "{}"), 'services: byte 2: kind: ServiceList is expected, this is ""'),
    (Answer(200, '{"kind":"PodList","metadata":{},"items":[]}'), 'ServiceList is expected, this is "PodList"'),
    (Answer(200, '{"kind":"ServiceList","items":null}'), "items: a list is expected"),
    (Answer(200, '{"kind":"ServiceList","metadata":{}}'), "items are missing"),
    (Answer(200, '{"kind":"ServiceList","items":[{"metadata":{}}]}'), "metadata.name is missing"),
    (Answer(200, '{"kind":"ServiceList","items":[' + "[" * 70), "nested more than 64 deep"),
    (Answer(200, '{"kind":"ServiceList","kind":"ServiceList"}'), 'key "kind" is there twice'),
    (Answer(200, '{"kind":"ServiceList","items":[{"metadata":{"name":"a"', cut=40), "transfer closed"),
    (Answer(200, '{"kind":"ServiceList","items":[{"metadata":{"name":"a"'), "ends in the middle"),
])
def test_bad_answers(hello, answer, complaint):
    hello.server.next(SERVICES, answer)
    hello.fails(complaint=complaint)
    assert hello.server.count(SERVICES) == 1


def test_second_page_fails(hello):
    """What the first page said does not count alone."""
    for number in range(600):
        hello.slice("10.0.0.9", name=f"a-{number}")
    hello.server.next(SLICES, Answer(200, json.dumps({
        "kind": "EndpointSliceList", "metadata": {"resourceVersion": "1", "continue": "500"}, "items": []})),
        Answer(500))
    hello.fails(complaint="500 to /apis/discovery.k8s.io/v1/endpointslices")


def test_list_expires_between_pages(hello):
    for number in range(600):
        hello.slice("10.0.0.9", service="x", name=f"x-{number}")
    hello.server.next(SLICES, Answer(200, json.dumps({
        "kind": "EndpointSliceList", "metadata": {"resourceVersion": "1", "continue": "old"}, "items": []})),
        Answer(410))
    hello.slice("10.0.0.7")
    assert hello.sync().stdout == "default/hello:80  +1 -2  1 backends\n"
    requests = [request for request in hello.server.requests if SLICES in request]
    assert [("limit" in request, "continue" in request) for request in requests] == [
        (True, False), (True, True), (False, False)]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(hello, status):
    hello.slice("10.0.0.1")
    hello.server.next(SERVICES, Answer(status, headers={"Retry-After": "2"}))
    start = time.monotonic()
    result = hello.sync()
    assert time.monotonic() - start >= 2
    assert f"{status} to {SERVICES}" in result.stderr and "trying again in 2.0 s" in result.stderr
    assert hello.addresses() == ["10.0.0.1"]


def test_retry_after_for_too_long(hello):
    hello.server.next(SERVICES, Answer(429, headers={"Retry-After": "300"}))
    hello.fails(complaint="429 to /api/v1/services")


def test_server_down(hello):
    hello.server.stop()
    hello.fails(complaint=f"{hello.server.url}: Failed to connect to 127.0.0.1")
    hello.server.start()


def test_server_that_never_answers(hello):
    hello.server.next(SERVICES, Answer(delay=20))
    start = time.monotonic()
    hello.fails("--request-timeout", "1", complaint="no answer within 1 s")
    assert time.monotonic() - start < 5


def test_unknown_authority(hello):
    config = hello.server.kubeconfig(hello.folder / "unknown", cluster={
        "certificate-authority": hello.certificates.path("other-ca.crt")})
    hello.fails(config=config, complaint="SSL certificate problem: unable to get local issuer certificate")
    config = hello.server.kubeconfig(hello.folder / "none", cluster={})
    hello.fails(config=config, complaint="SSL certificate problem")
    config = hello.server.kubeconfig(hello.folder / "name", cluster={
        "certificate-authority": hello.certificates.path("ca.crt"), "tls-server-name": "example.org"})
    hello.fails(config=config, complaint="no alternative certificate subject name matches")
    assert hello.server.requests == []


def test_server_name_and_insecure(hello):
    config = hello.server.kubeconfig(hello.folder / "name", cluster={
        "certificate-authority": hello.certificates.path("ca.crt"), "tls-server-name": "kubernetes.default"})
    assert hello.sync(config=config).stderr == ""
    config = hello.server.kubeconfig(hello.folder / "insecure", cluster={"insecure-skip-tls-verify": True})
    assert "insecure-skip-tls-verify" in hello.sync(config=config).stderr


def test_plain_http_on_loopback(hello):
    server = ApiServer()
    server.token = None
    server.objects = hello.server.objects
    try:
        assert hello.sync(config=server.kubeconfig(hello.folder / "proxy", user={})).stdout == ""
        assert server.count(SERVICES) == 1
        # Whoever is the proxy for others does not get to see what stays on this machine.
        assert hello.sync(config=server.kubeconfig(hello.folder / "proxy", user={}),
                          env={"http_proxy": "http://127.0.0.1:1"}).stdout == ""
        assert server.count(SERVICES) == 2
    finally:
        server.stop()


def test_wrong_port(hello):
    """TLS to a server that speaks plain HTTP."""
    server = ApiServer()
    try:
        config = server.kubeconfig(hello.folder / "plain", cluster={"server": server.url.replace("http:", "https:")})
        hello.fails(config=config, complaint="SSL")
    finally:
        server.stop()
