# SPDX-License-Identifier: GPL-2.0
"""`lbctl backends sync --watch`: streams that end, break, expire or fall silent, and an API server that goes away."""

import json
import os
import signal
import time

import pytest

from apiserver import Answer, bookmark, event
from conftest import as_json
from world import PIN_DIR, lbctl, lock_held, run, wait_for

VIP = "192.0.2.10:80/tcp"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICES = "/api/v1/services"


def lists(cluster, path=SLICES):
    return sum(path in request and "watch" not in request for request in cluster.server.requests)


def watches(cluster, path=SLICES):
    return [request for request in cluster.server.requests if path in request and "watch=1" in request
            and "sendInitialEvents" not in request]


def follows(cluster, *addresses, vip=VIP):
    wait_for(lambda: cluster.addresses(vip) == sorted(addresses), 30, f"{vip} -> {addresses}")


@pytest.fixture(name="watched")
def make_watched(hello):
    """A watch that is established, on the state that `hello` synced."""
    hello.running = hello.watch("-v")
    wait_for(lambda: hello.server.watchers() == ["endpointslices", "services"], 10, "two watches")
    return hello


def test_follows(watched):
    watched.slice("10.0.0.2", "10.0.0.3", "10.0.0.4")
    watched.running.says("default/hello:80  +2 -1  3 backends")
    assert watched.addresses() == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    watched.service("web", "192.0.2.11")
    watched.running.says("default/web:80  +0 -0  0 backends  new 192.0.2.11:80/tcp")
    watched.server.delete("endpointslices", "hello-1")
    watched.running.says("default/hello:80  +0 -3  0 backends")
    watched.server.delete("services", "hello")
    watched.running.says(f"gone {VIP}")
    assert list(watched.state()) == ["192.0.2.11:80/tcp"]
    assert lists(watched) == 1 and len(watches(watched)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_well(watched, number):
    state = watched.state()
    assert watched.running.end(number) == 0
    assert watched.state() == state


def test_sigkill_changes_nothing(watched):
    for n in range(20):
        watched.slice(f"10.0.1.{n}", "10.0.0.1")
    watched.running.end(signal.SIGKILL)
    assert "10.0.0.1" in watched.addresses()
    watched.sync()
    assert watched.addresses() == ["10.0.0.1", "10.0.1.19"]


def test_json_tells_the_latency(hello):
    running = hello.watch("-o", "json")
    wait_for(lambda: len(hello.server.watchers()) == 2)
    hello.slice("10.0.0.1", "10.0.0.7")
    running.says('"latency_us"')
    lines = as_json("\n".join(running.out))
    assert (lines[0]["added"], lines[0]["removed"]) == (1, 1)
    assert 0 < lines[0]["latency_us"] < 1e6


def test_a_burst_is_one_batch(watched):
    """500 events in one piece: few batches, and the last state counts."""
    with watched.server.lock:  # nobody is told before all of it has happened
        for n in range(500):
            watched.slice(f"10.0.{n >> 8}.{n & 255}")
    follows(watched, "10.0.1.243")
    assert len(watched.running.out) < 50


def test_changes_that_do_not_matter_say_nothing(watched):
    item = watched.server.objects["endpointslices"][("default", "hello-1")]
    item["metadata"]["annotations"] = {"a": "b"}
    watched.server.put("endpointslices", item)
    watched.slice("10.0.0.9")
    watched.running.says("+1 -2")
    assert len(watched.running.out) == 1


def test_unwatched_change_between_list_and_watch(hello):
    """What happens after the list and before the watch comes with the watch: it starts at the list's version."""
    hello.server.next(f"watch {SLICES}", Answer(lines=[], then=lambda: hello.slice("10.0.0.5")))
    hello.watch()
    follows(hello, "10.0.0.5")


@pytest.mark.parametrize("after", ["end", "cut"])
def test_end_of_stream_is_no_relist(hello, after):
    """Clean or cut: it goes on from the last version, without a list."""
    item = hello.slice("10.0.0.3")
    version = int(item["metadata"]["resourceVersion"])
    hello.server.next(f"watch {SLICES}", Answer(lines=[event("MODIFIED", {"kind": "EndpointSlice"} | item)],
                                                after=after, delay=0))
    hello.watch()
    follows(hello, "10.0.0.3")
    wait_for(lambda: len(watches(hello)) == 2, 10, "a second watch")
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")
    assert lists(hello) == 1
    assert f"resourceVersion={version}&" in watches(hello)[1]


def test_server_ends_watches_when_they_are_due(hello):
    """timeoutSeconds is obeyed by the server; no list, no complaint."""
    running = hello.watch("--watch-timeout", "2")
    wait_for(lambda: len(watches(hello)) == 3, 15, "a third watch")
    assert lists(hello) == 1 and not running.err
    assert all("timeoutSeconds=2" in request for request in watches(hello))
    hello.slice("10.0.0.6")
    follows(hello, "10.0.0.6")


def test_default_timeout_is_random(hello):
    for _ in range(2):
        hello.watch()
    wait_for(lambda: len(watches(hello)) + len(watches(hello, SERVICES)) >= 4)
    seconds = {int(request.split("timeoutSeconds=")[1]) for request in hello.server.requests if "watch=1" in request}
    assert len(seconds) > 1 and min(seconds) >= 300 and max(seconds) <= 600


def test_bookmarks_move_the_version(hello):
    hello.server.next(f"watch {SLICES}", Answer(lines=[bookmark("endpointslices", 5000)], delay=1))
    hello.watch()
    wait_for(lambda: len(watches(hello)) == 2, 10, "a second watch")
    assert "allowWatchBookmarks=true" in watches(hello)[0]
    assert "resourceVersion=5000&" in watches(hello)[1]
    assert hello.addresses() == ["10.0.0.1", "10.0.0.2"]


def test_silent_watch_is_ended(hello):
    """A watch that never speaks again: given up its time-out and a request's time-out later."""
    hello.server.next(f"watch {SLICES}", Answer(lines=[], after="silence"))
    hello.watch("--watch-timeout", "1", "--request-timeout", "1")
    wait_for(lambda: watches(hello), 10)
    hello.slice("10.0.0.8")
    start = time.monotonic()
    follows(hello, "10.0.0.8")
    assert time.monotonic() - start < 5


def test_watch_that_does_not_begin(hello):
    hello.server.next(f"watch {SLICES}", Answer(delay=30))
    running = hello.watch("--request-timeout", "1")
    running.says("no answer within 1 s; forwarding goes on, trying again in ")
    running.says("answers again after ")


@pytest.mark.parametrize("http", [False, True])
def test_expired(watched, http):
    """410, in either form: list again, and what vanished meanwhile goes."""
    watched.service("web", "192.0.2.11")
    watched.running.says("default/web:80")
    watched.server.stop()
    watched.running.says("forwarding goes on, trying again in")
    watched.server.delete("services", "web")
    watched.slice("10.0.0.7")
    watched.server.log.clear()
    if http:
        watched.server.next(f"watch {SLICES}", Answer(410))
        watched.server.next(f"watch {SERVICES}", Answer(410))
    else:
        watched.server.forget()
    watched.server.start()
    follows(watched, "10.0.0.7")
    wait_for(lambda: list(watched.state()) == [VIP], 10, "the relist of services")
    assert lists(watched) == 2
    watched.running.says("too old to watch from: listing again")


def test_expired_again_and_again(hello):
    """A server that lists and then says 410 each time is not hammered."""
    hello.server.next(f"watch {SLICES}", *[Answer(410) for _ in range(50)])
    hello.watch()
    time.sleep(3)
    assert 2 <= lists(hello) <= 5


def test_failed_relist_changes_nothing(watched):
    state = watched.state()
    watched.server.delete("services", "hello")
    watched.service("hello")  # so that the first object of a list is younger than the stream
    watched.server.stop()
    watched.running.says("forwarding goes on")
    watched.server.forget()
    watched.server.next(SERVICES, Answer(200, '{"kind":"ServiceList","metadata":{},"items":[{"metadata":', cut=40),
                        Answer(500))
    watched.server.next(SLICES, Answer(200, '{"kind":"EndpointSliceList","metadata":{},"items":[', cut=30))
    before = lists(watched, SERVICES)
    watched.server.start()
    wait_for(lambda: lists(watched, SERVICES) > before, 10, "a list")
    assert watched.state() == state
    watched.slice("10.0.0.5")
    follows(watched, "10.0.0.5")


def test_pages_of_a_failed_list_are_forgotten(hello):
    """A list that breaks off after its first page: what was on that page, and is gone by the next try, never shows."""
    ghost = {"metadata": {"name": "ghost"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
             "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.66"}]}}}
    hello.server.next(SERVICES, Answer(200, json.dumps({
        "kind": "ServiceList", "metadata": {"resourceVersion": "1", "continue": "1"}, "items": [ghost]})), Answer(500))
    running = hello.watch()
    running.says("500 to /api/v1/services")
    running.says("answers again")
    hello.slice("10.0.0.3")
    follows(hello, "10.0.0.3")
    assert list(hello.state()) == [VIP]


def test_error_event_that_is_no_410(watched):
    watched.server.stop()
    watched.server.next(f"watch {SLICES}", Answer(lines=[event("ERROR", {"kind": "Status", "code": 500,
                                                                         "message": "storage is on fire"})]))
    watched.server.start()
    watched.slice("10.0.0.4")
    follows(watched, "10.0.0.4")
    watched.running.says("500 to the watch of endpointslices: storage is on fire")
    assert lists(watched) == 1


@pytest.mark.parametrize("lines", [
    ["garbage"], ['{"type":"MODIFIED"}'], ['{"type":"STRANGE","object":{}}'], ["[]"],
    ['{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a"}}}'],
    ['{"type":"MODIFIED","object":{"kind":"EndpointSlice","metadata":{}}}'],
    ['{"type":"ADDED","object":' + "[" * 70],
])
def test_streams_that_make_no_sense(hello, lines):
    """Said, and listed again; the state stays meanwhile."""
    hello.server.next(f"watch {SLICES}", Answer(lines=lines))
    running = hello.watch()
    running.says("forwarding goes on, trying again in")
    assert hello.addresses() == ["10.0.0.1", "10.0.0.2"]
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")
    running.says("answers again")
    assert lists(hello) == 2


def test_object_that_makes_no_sense(watched):
    watched.slice("10.0.0.999")
    watched.running.says('"10.0.0.999" is no IPv4 address: ignored')
    assert watched.addresses() == ["10.0.0.1", "10.0.0.2"]
    watched.slice("10.0.0.9")
    follows(watched, "10.0.0.9")
    assert lists(watched) == 1


def test_server_goes_away_and_comes_back(watched):
    """Said once with the reason and the next try; forwarding stays; what happened meanwhile arrives."""
    watched.server.stop()
    line = watched.running.says("forwarding goes on, trying again in")
    assert line.startswith(f"lbctl: {watched.server.url}: ")
    watched.slice("10.0.0.6")
    time.sleep(3)
    assert watched.addresses() == ["10.0.0.1", "10.0.0.2"]
    watched.server.start()
    watched.running.says("answers again after")
    follows(watched, "10.0.0.6")
    watched.running.end()
    quiet = [line for line in watched.running.err if "GET " not in line]
    assert sum("forwarding goes on" in line for line in quiet if "10.0.0" not in line) >= 1


def test_absence_is_told_once(hello):
    running = hello.watch()
    wait_for(lambda: len(hello.server.watchers()) == 2)
    hello.server.stop()
    running.says("forwarding goes on")
    time.sleep(5)
    hello.server.start()
    running.says("answers again")
    assert len(running.err) == 2, running.err


def test_server_is_away_from_the_start(hello):
    hello.server.stop()
    running = hello.watch()
    running.says("Failed to connect")
    assert hello.addresses() == ["10.0.0.1", "10.0.0.2"]
    hello.slice("10.0.0.3")
    hello.server.start()
    follows(hello, "10.0.0.3")


def test_retry_after_of_a_watch(hello):
    hello.server.next(f"watch {SLICES}", Answer(429, headers={"Retry-After": "3"}))
    start = time.monotonic()
    running = hello.watch()
    running.says("trying again in 3.0 s")
    running.says("answers again")
    assert time.monotonic() - start >= 3


def test_version_of_the_future(hello):
    """504 with Retry-After: the server has not seen yet what another one listed. The same version again, and no list."""
    hello.server.next(f"watch {SLICES}", Answer(504, headers={"Retry-After": "1"}))
    running = hello.watch()
    running.says(f"504 to {SLICES}")
    running.says("answers again")
    wait_for(lambda: len(watches(hello)) == 2, 10, "a second watch")
    first, second = (request.split("resourceVersion=")[1].split("&")[0] for request in watches(hello))
    assert first == second and lists(hello) == 1
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")


@pytest.mark.parametrize("refusal", [Answer(500), Answer(504)], ids=["500", "504"])
def test_version_that_no_watch_gets_past(hello, refusal):
    """Three refusals of the server itself, and what it has is listed instead: nothing is waited for for ever."""
    for _ in range(3):
        hello.server.next(f"watch {SLICES}", refusal)
    running = hello.watch()
    running.says(f"{refusal.status} to {SLICES}")
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")
    assert len(watches(hello)) == 3 + 1 and lists(hello) == 2


def test_keepalive_of_watches(watched):
    """A peer that vanished without a word is noticed: 30 s of silence, and three probes 10 s apart."""
    sockets = run("ss", "-tnoH", "state", "established", "dport", "=", f":{watched.server.port}").stdout.splitlines()
    ours = [line for line in sockets if "timer:(keepalive," in line]
    assert len(ours) >= 2, sockets  # one for each watch, with HTTP/1.1


def test_401_in_the_middle(hello):
    token = hello.folder / "token"
    token.write_text("secret")
    config = hello.server.kubeconfig(hello.folder / "own", hello.certificates, user={"tokenFile": str(token)})
    running = hello.watch(config=config)
    wait_for(lambda: len(hello.server.watchers()) == 2)
    hello.server.token = "rotated"
    hello.server.stop()
    hello.server.start()
    running.says("are not accepted", 15)
    token.write_text("rotated")
    running.says("answers again", 15)
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")


def test_403_of_one_resource(hello):
    """The other resource goes on."""
    hello.server.next(f"watch {SERVICES}", *[Answer(403)] * 2)
    running = hello.watch()
    running.says("403: not allowed to watch /api/v1/services: Forbidden")
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")
    running.says("answers again")


def test_api_for_endpoints_goes_away(hello):
    """An upgrade takes v1beta1: another version is looked for."""
    hello.server.versions = ["v1beta1"]
    hello.watch()
    wait_for(lambda: len(hello.server.watchers()) == 2)
    hello.server.stop()
    hello.server.versions = ["v1"]
    hello.server.forget()
    hello.server.start()
    wait_for(lambda: watches(hello, SLICES), 20, "a watch of v1")
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")


def test_api_for_endpoints_is_announced_and_missing(hello):
    """Discovery names an API that answers 404: said once, asked at growing intervals, and its end said, too."""
    asked = []
    hello.server.next(SLICES, *[Answer(404, then=lambda: asked.append(time.monotonic())) for _ in range(3)])
    running = hello.watch()
    line = running.says(f"404 to {SLICES}", 15)
    assert "; forwarding goes on, trying again in " in line
    running.says("answers again after ", 60)
    assert len(asked) == 3 and asked[2] - asked[1] >= 1.6, asked
    assert hello.server.requests.count("/apis/discovery.k8s.io") == 4
    assert len(running.err) == 2, running.err
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")


def test_vip_of_another_owner_is_taken_when_it_is_free(hello):
    hello.service("web", "192.0.2.11")
    lbctl("services", "add", "192.0.2.11:80/tcp")
    running = hello.watch()
    running.says("192.0.2.11:80/tcp is there already, and belongs to cli: left alone")
    hello.service("web", "192.0.2.12")
    running.says("new 192.0.2.12:80/tcp")
    assert "192.0.2.11:80/tcp" in hello.state()


@pytest.mark.parametrize("reason", ["another owner", "full"])
def test_service_that_could_not_be_had_is_told_again(hello, reason):
    """Once for as long as it is there: a VIP whose Service went waits for nothing, and is told when it comes back."""
    complaint = "192.0.2.11:80/tcp is there already, and belongs to cli: left alone"
    slices = ["big-1", "big-2", "big-3"]
    if reason == "full":
        complaint = "192.0.2.11:80/tcp: the map backends is full"
        for place, name in enumerate(slices):
            hello.slice(*[f"10.0.{place + 1}.{last}" for last in range(100)], service="web", name=name)
    else:
        lbctl("services", "add", "192.0.2.11:80/tcp")
    running = hello.watch()

    def told(times):
        wait_for(lambda: sum(complaint in line for line in running.err) == times, 10, f"{times} lines, of {running.err}")

    hello.service("web", "192.0.2.11")
    told(1)
    hello.server.delete("services", "web")
    hello.slice("10.0.0.3")
    follows(hello, "10.0.0.3")
    hello.service("web", "192.0.2.11")
    told(2)
    hello.slice("10.0.0.4")
    follows(hello, "10.0.0.4")
    told(2)


def test_node_ports_follow_the_device(hello):
    hello.service(ports=[{"name": "http", "port": 80, "nodePort": 31001}])
    running = hello.watch("--vips", "nodeport")
    running.says("new 198.51.100.1:31001/tcp")
    run("ip", "addr", "add", "198.51.100.7/24", "dev", "uplink")
    try:
        running.says("198.51.100.7:31001/tcp")
        assert hello.addresses("198.51.100.7:31001/tcp") == ["10.0.0.1", "10.0.0.2"]
    finally:
        run("ip", "addr", "del", "198.51.100.7/24", "dev", "uplink")
    running.says("gone 198.51.100.7:31001/tcp")


def test_device_that_was_made_anew_while_no_watch_ran(hello):
    """A backend that did not change itself is led to it, and replies that come in by it are seen."""
    def make():
        run("ip", "link", "add", "pod0", "type", "veth", "peer", "name", "pod1")
        for device in ("pod0", "pod1"):
            run("ip", "link", "set", device, "addrgenmode", "none", "up")  # no event of an address that comes later
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "pod0")

        def up():
            (link,) = json.loads(run("ip", "-j", "link", "show", "pod0").stdout)
            return link["operstate"] == "UP" and link["ifindex"]
        return wait_for(up, 10, "pod0")

    def led_to():
        elements = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/backends").stdout)
        return {element["formatted"]["value"]["ifindex"] for element in elements} - {0}

    hello.slice("10.77.0.2")
    first = make()
    try:
        hello.sync()
        assert first in led_to()
        run("ip", "link", "del", "pod0")
        second = make()
        assert first != second and first in led_to()
        running = hello.watch()
        wait_for(lambda: second in led_to() and first not in led_to(), 10, "the new device")
        assert "direct-action" in run("tc", "filter", "show", "dev", "pod0", "ingress").stdout
        assert not running.err, running.err
    finally:
        run("ip", "link", "del", "pod0")


@pytest.mark.parametrize("how", ["a Service", "a route", "detached", "attached again"])
def test_pins_that_were_removed(watched, how):
    """A watch cannot follow to new ones: it ends with one line, and whoever keeps it starts it again."""
    folder = "/sys/fs/bpf/going"
    pins = ["--pin-dir", folder]
    lbctl(*pins, "attach", "outside", "--max-flows", "1024")

    def started():
        running = watched.watch(*pins)
        wait_for(lambda: "192.0.2.10" in lbctl(*pins, "services", "list").stdout, 10, "the service")
        return running

    running = started()
    wait_for(lambda: len(watched.server.watchers()) == 4, 10, "two more watches")
    try:
        if how in ("a Service", "a route"):
            # As detach does, with the lock, but without an event of a link.
            with lock_held(folder):
                os.rename(folder, f"{folder}-old")
            if how == "a Service":
                watched.service("web", "192.0.2.11")
            else:
                run("ip", "route", "add", "10.78.0.0/24", "via", "198.51.100.2")
        else:
            lbctl(*pins, "detach", "--all")
            if how == "attached again":
                lbctl(*pins, "attach", "outside", "--max-flows", "1024")
        assert running.process.wait(10) == 1
        running.says("was removed by another lbctl meanwhile; start this again, after `lbctl attach DEV`")
        assert len(running.err) == 1, running.err
        if how == "attached again":
            started()
    finally:
        if os.path.exists(f"{folder}-old"):
            os.rename(f"{folder}-old", folder)
        run("ip", "route", "del", "10.78.0.0/24", check=False)
        lbctl(*pins, "detach", "--all", check=False)


def test_idle_costs_nothing(watched):
    ticks = os.sysconf("SC_CLK_TCK")

    def used():
        with open(f"/proc/{watched.running.process.pid}/stat", encoding="ascii") as file:
            words = file.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / ticks

    def switches():
        with open(f"/proc/{watched.running.process.pid}/status", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("voluntary")).split()[1])

    time.sleep(1)
    before, woken = used(), switches()
    time.sleep(5)
    assert used() == before
    assert switches() - woken <= 2
