# SPDX-License-Identifier: GPL-2.0
"""externalTrafficPolicy: Local, hints of zones, and the health checks of such Services."""

import contextlib
import http.client
import json
import socket
import time

import pytest

from world import lbctl_json, wait_for

VIP = "192.0.2.10:80/tcp"
PORT = 31500


def ask(port=PORT, method="GET", path="/healthz", body=None, host="127.0.0.1"):
    """(status, headers, the body's JSON or None)"""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        text = response.read()
        return response.status, response.headers, json.loads(text) if text else None
    finally:
        connection.close()


def refuses(port=PORT):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def answers_for(port=PORT):
    """The Service that the port is of now; None: nobody's, or it has just become another's."""
    try:
        return ask(port)[2]["service"]["name"]
    except OSError:
        return None


@pytest.fixture(name="local")
def make_local(cluster):
    """One endpoint here, in zone z1, and one elsewhere."""
    cluster.service(externalTrafficPolicy="Local", healthCheckNodePort=PORT)
    cluster.slice("10.0.0.1@here", "10.0.0.2@there")
    return cluster


def start(cluster, *options):
    running = cluster.watch("--node-name", "here", *options)
    running.says(f"new {VIP}")
    return running


@pytest.mark.parametrize("how", ["option", "environment", "host"])
def test_name_of_the_node(local, how):
    """--node-name, before NODE_NAME, before the name of the host in lower case, as the kubelet has it."""
    name = socket.gethostname().lower() if how == "host" else "here"
    local.slice(f"10.0.0.1@{name}", "10.0.0.2@there")
    options = ["--node-name", "here"] if how == "option" else []
    local.sync(*options, env={"NODE_NAME": {"option": "there", "environment": "here", "host": ""}[how]})
    assert local.state() == {VIP: {"10.0.0.1:8080": "active"}}
    (service,) = lbctl_json("services", "list")
    assert service["forward"] == "dnat"


def test_nobody_here_is_silence(local):
    """Elsewhere are some: dropped by a named reason, and not refused. Nowhere is any: refused."""
    local.slice("10.0.0.2@there")
    local.sync("--node-name", "here")
    (service,) = lbctl_json("services", "list")
    assert (service["backends"], service["source_ranges"]) == (0, ["::/0"])
    local.slice()
    local.sync("--node-name", "here")
    (service,) = lbctl_json("services", "list")
    assert (service["backends"], service.get("source_ranges", [])) == (0, [])


def test_hints_of_zones(cluster):
    cluster.service()
    item = cluster.slice("10.0.0.1", "10.0.0.2")
    for endpoint, zone in zip(item["endpoints"], ("z1", "z2")):
        endpoint["hints"] = {"forZones": [{"name": zone}]}
    cluster.server.put("endpointslices", item)
    cluster.sync("--zone", "z2")
    assert cluster.state() == {VIP: {"10.0.0.1:8080": "draining", "10.0.0.2:8080": "active"}}
    cluster.sync()
    assert cluster.state() == {VIP: {"10.0.0.1:8080": "active", "10.0.0.2:8080": "active"}}


@pytest.mark.parametrize("option", ["--node-name", "--zone"])
@pytest.mark.parametrize("value", ["", "a b", "../x"])
def test_names_that_are_none(cluster, option, value):
    result = cluster.sync(option, value, check=False)
    assert result.returncode == 2 and f"'{value}' is no name" in result.stderr, result


def test_health_checks(local):
    """200 with endpoints that are ready on this node, else 503; gone with the Service's wish for them."""
    running = start(local)
    status, headers, body = ask()
    assert (status, body) == (200, {"service": {"namespace": "default", "name": "hello"}, "localEndpoints": 1,
                                    "serviceProxyHealthy": True})
    assert headers["Content-Type"] == "application/json" and headers["X-Load-Balancing-Endpoint-Weight"] == "1"
    assert ask(method="HEAD", path="/anything")[::2] == (200, None)
    assert ask(method="POST", body="x=1")[0] == 200
    assert ask(host="::1")[0] == 200
    local.slice("10.0.0.1@here", "10.0.0.3@here", "10.0.0.2@there")
    wait_for(lambda: ask()[2]["localEndpoints"] == 2, 10, "two endpoints")
    local.slice("10.0.0.2@there")
    wait_for(lambda: ask()[0] == 503, 10, "no endpoint")
    assert ask()[2]["localEndpoints"] == 0
    local.service(externalTrafficPolicy="Local", healthCheckNodePort=PORT + 1)
    wait_for(lambda: refuses() and not refuses(PORT + 1), 10, "another port")
    assert ask(PORT + 1)[0] == 503
    local.service()
    wait_for(lambda: refuses(PORT + 1), 10, "no port")
    assert not running.err, running.err


def test_health_of_one_that_ends(local):
    """It gets what is new, as there is no other, but who asks is led elsewhere."""
    start(local)
    item = local.slice("10.0.0.1@here", "10.0.0.2@there")
    item["endpoints"][0]["conditions"] = {"ready": False, "serving": True, "terminating": True}
    local.server.put("endpointslices", item)
    wait_for(lambda: ask()[0] == 503, 10, "503")
    assert local.state() == {VIP: {"10.0.0.1:8080": "active"}}


def test_health_checks_end_with_their_service(local):
    start(local)
    assert ask()[0] == 200
    local.server.delete("services", "hello")
    wait_for(refuses, 10, "no port")


def test_health_of_a_service_without_an_address(local):
    """Who gives out addresses may want to know first where they would be served."""
    local.service(vip=None, externalTrafficPolicy="Local", healthCheckNodePort=PORT)
    local.watch("--node-name", "here")
    wait_for(lambda: not refuses(), 10, "the port")
    assert ask()[0] == 200


def test_health_port_that_another_service_gets(local):
    """At once, and not when it is tried again."""
    start(local, "-v")
    local.service("another", "192.0.2.11", externalTrafficPolicy="Local", healthCheckNodePort=PORT)
    local.watches[-1].says("are left to who has it already")
    local.server.delete("services", "hello")
    wait_for(lambda: answers_for() == "another", 5, "the other one's answer")


@pytest.mark.parametrize("options", [["--dry-run"], ["--vips", "clusterip"], ["--vips", "external"]])
def test_no_health_checks_where_nothing_is_served(local, options):
    local.watch("--node-name", "here", *options)
    wait_for(lambda: len(local.server.watchers()) == 2, 10, "two watches")
    local.service("web", "192.0.2.11", clusterIP="10.96.0.9")
    local.watches[-1].says("default/web:80") if "--dry-run" in options else None
    assert refuses()


def test_crowd_at_the_health_checks(local):
    """Visitors who say nothing do not keep the watch from its work, nor others out for long."""
    running = start(local)
    crowd = []
    try:
        for _ in range(100):
            crowd.append(socket.create_connection(("127.0.0.1", PORT), timeout=20))
        local.slice("10.0.0.1@here", "10.0.0.3@here")
        wait_for(lambda: len(local.addresses()) == 2, 10, "the change")
        crowd[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert crowd[0].recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert crowd[99].recv(100) == b""  # more than 64 at a time
        crowd[1].sendall(b"x" * 100_000)
        with pytest.raises(OSError):  # a head that does not end
            while crowd[1].recv(100):
                pass
            raise ConnectionError
        assert crowd[2].recv(100) == b""  # after five seconds
    finally:
        for visitor in crowd:
            visitor.close()
    wait_for(lambda: ask()[0] == 200, 10, "an answer")
    assert running.process.poll() is None and not running.err, running.err


def test_slow_visitor_of_the_health_checks(local):
    """Who sends a byte now and then has five seconds like everybody else."""
    running = start(local)
    with socket.create_connection(("127.0.0.1", PORT), timeout=1) as visitor:
        begin = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < begin + 15:
                visitor.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if visitor.recv(100) == b"":
                        raise ConnectionError
        assert 4 < time.monotonic() - begin < 10
    assert ask()[0] == 200
    assert running.process.poll() is None and not running.err, running.err


def test_port_of_health_checks_that_is_taken(local):
    """kube-proxy has it, on nodes where it runs: it is left to it, and had when it goes."""
    with socket.create_server(("127.0.0.1", PORT)):
        running = start(local, "-v")
        running.says(f"health checks at port {PORT} are left to who has it already")
    running.says(f"health checks are answered at port {PORT}", 45)
    assert ask()[0] == 200
