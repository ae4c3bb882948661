# SPDX-License-Identifier: GPL-2.0
"""Streaming lists: a watch that begins with all there is. Where they are refused, break off, or do not end, pages are asked for."""

import pytest

from apiserver import INITIAL_END, Answer, bookmark, event
from test_watch import SERVICES, SLICES, VIP, follows, lists, watches
from world import wait_for


def streams(cluster, path=SLICES):
    return [request for request in cluster.server.requests if path in request and "sendInitialEvents=true" in request]


def watching(cluster):
    wait_for(lambda: cluster.server.watchers() == ["endpointslices", "services"], 10, "two watches")


def slice_of(cluster, address, name="hello-1", service="hello"):
    """What a server would send, without it being in the server's store."""
    return {"kind": "EndpointSlice", "metadata": {"name": name, "namespace": "default", "resourceVersion": "1",
                                                  "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": [address]}]}


@pytest.fixture(name="streaming")
def make_streaming(hello):
    hello.server.streams = True
    return hello


def test_replaces_and_goes_on(streaming):
    """One request is list and watch; what vanished before it goes."""
    streaming.service("web", "192.0.2.11")
    streaming.sync()
    streaming.server.delete("services", "web")
    streaming.slice("10.0.0.2", "10.0.0.3")
    streaming.server.requests.clear()
    running = streaming.watch()
    follows(streaming, "10.0.0.2", "10.0.0.3")
    wait_for(lambda: list(streaming.state()) == [VIP], 10, "the other VIP to go")
    watching(streaming)
    streaming.slice("10.0.0.4")
    follows(streaming, "10.0.0.4")
    request, = streams(streaming)
    assert "resourceVersionMatch=NotOlderThan" in request and "allowWatchBookmarks=true" in request
    assert not lists(streaming) and not lists(streaming, SERVICES) and not watches(streaming) and not running.err


def test_goes_on_from_its_end(streaming):
    """The stream ends after the list: a watch from the version of the bookmark."""
    lines = [event("ADDED", slice_of(streaming, "10.0.0.7")), bookmark("endpointslices", 4321, INITIAL_END)]
    streaming.server.next(f"stream {SLICES}", Answer(lines=lines, delay=1.1))
    streaming.watch()
    follows(streaming, "10.0.0.7")
    wait_for(lambda: watches(streaming), 10, "a watch")
    assert "resourceVersion=4321&" in watches(streaming)[0] and not lists(streaming)


def test_streams_again_after_410(streaming):
    streaming.watch()
    watching(streaming)
    streaming.server.stop()
    streaming.slice("10.0.0.9")
    streaming.server.log.clear()
    streaming.server.forget()
    streaming.server.start()
    follows(streaming, "10.0.0.9")
    assert len(streams(streaming)) == 2 and not lists(streaming)


def test_changes_while_it_is_told(streaming):
    """The last word about an object counts, whatever else was said of it before the end."""
    one, two = slice_of(streaming, "10.0.0.5"), slice_of(streaming, "10.0.0.6")
    ghost = slice_of(streaming, "10.0.0.66", "ghost")
    bad = slice_of(streaming, "10.0.0.999", "bad")
    lines = [event("ADDED", one), event("ADDED", ghost), event("MODIFIED", two), event("DELETED", ghost),
             event("ADDED", bad), event("DELETED", bad), bookmark("endpointslices", 4321, INITIAL_END)]
    streaming.server.next(f"stream {SLICES}", Answer(lines=lines, after="silence"))
    running = streaming.watch()
    follows(streaming, "10.0.0.6")
    assert [line for line in running.err if "is no IPv4 address: ignored" not in line] == []


@pytest.mark.parametrize("answer", [
    Answer(422), Answer(400), Answer(403),
    # As 1.36 says it over an etcd that does not do its part.
    Answer(lines=[event("ERROR", {"kind": "Status", "code": 500, "message": "a watch stream was requested by the client but the "
                                  "required storage feature RequestWatchProgress is disabled", "reason": "InternalError"})]),
    Answer(lines=[event("ERROR", {"kind": "Status", "code": 400, "message": "no"})]),
    Answer(lines=[event("ERROR", {"kind": "Status", "code": 410, "message": "gone"})]),
    Answer(lines=["garbage"]), Answer(lines=[]),
    Answer(lines=[bookmark("endpointslices", 4321)], after="silence"),  # of before 1.19
], ids=["422", "400", "403", "event-500", "event-400", "event-410", "garbage", "empty", "bookmark"])
def test_refused(streaming, answer):
    """In whatever form: at once a list, without a word but with -v; and nobody asks for a stream again."""
    answer.then = lambda: streaming.slice("10.0.0.8")
    streaming.server.next(f"stream {SLICES}", answer)
    running = streaming.watch()
    follows(streaming, "10.0.0.8")
    assert len(streams(streaming)) == 1 and lists(streaming) == 1 and not running.err, running.err
    streaming.server.forget()
    wait_for(lambda: lists(streaming) == 2 and len(streams(streaming, SERVICES)) == 2, 10, "a list and a stream")
    assert len(streams(streaming)) == 1 and not lists(streaming, SERVICES)


@pytest.mark.parametrize("after", ["cut", "end"])
def test_breaks_off(streaming, after):
    """Before its end: what was told so far counts for nothing, and nothing is removed, even if no list is to be had at first."""
    state = streaming.state()
    ghost = {"kind": "Service", "metadata": {"name": "ghost"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
             "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.66"}]}}}
    streaming.server.next(f"stream {SERVICES}", Answer(lines=[event("ADDED", ghost)], after=after))
    streaming.server.next(SERVICES, Answer(500), Answer(500))
    running = streaming.watch("-v")
    running.says("services: not to be had as a stream")
    running.says("500 to /api/v1/services")
    assert streaming.state() == state
    running.says("answers again")
    streaming.slice("10.0.0.3")
    follows(streaming, "10.0.0.3")
    assert list(streaming.state()) == [VIP]


def test_does_not_end(streaming):
    """A server that knows no such lists tells all there is, and then is silent."""
    streaming.server.next(f"stream {SLICES}", Answer(lines=[event("ADDED", slice_of(streaming, "10.0.0.66"))], after="silence"))
    running = streaming.watch("-v", "--request-timeout", "2")
    running.says("endpointslices: not to be had as a stream (it does not come to its end): listing")
    streaming.slice("10.0.0.3")
    follows(streaming, "10.0.0.3")


@pytest.mark.parametrize("status", [429, 503])
def test_later(streaming, status):
    """A server that has no time now is asked for the same when it says."""
    streaming.server.next(f"stream {SLICES}", Answer(status, headers={"Retry-After": "1"}))
    running = streaming.watch()
    running.says(f"{status} to {SLICES}")
    running.says("answers again")
    assert len(streams(streaming)) == 2 and not lists(streaming)
