# SPDX-License-Identifier: GPL-2.0
"""The API server goes, comes, forgets and forbids; lbctl is killed, stopped and started."""

import json
import os
import signal
import time

import world

URL = "http://192.0.2.1:31001/"
SERVICE = """
{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {type: NodePort, selector: {run: hello},
 ports: [{port: 80, targetPort: 8080, nodePort: %d}]}}
"""
ROLE = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: lbctl}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lbctl}
rules:
- {apiGroups: [""], resources: [services], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lbctl}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lbctl}
subjects: [{kind: ServiceAccount, name: lbctl, namespace: default}]
"""


def all_answer(lab, count=5):
    return all(answer.startswith("Hostname: hello-") for answer in lab.answers(URL, count))


def test_api_server_goes_and_comes(hello):
    """Forwarding goes on without the API server; later changes arrive."""
    hello.plane.stop_api()
    time.sleep(2)
    assert all_answer(hello)
    hello.plane.start_api()
    hello.plane.restart_controllers()
    hello.scale("hello", 3)
    hello.plane.wait_endpoints("hello", 3)
    hello.wait_active("hello", 3, 40)
    assert len(set(hello.answers(URL, 9))) == 3
    assert hello.watch.poll() is None


def test_version_that_is_gone(hello):
    """410: while lbctl does not look, its watches end, things change, etcd is compacted, and the API server is another. What
    vanished meanwhile is deleted, what came is there."""
    hello.plane.apply(SERVICE % ("second", 31004))
    hello.settle("second", 1)
    os.kill(hello.watch.pid, signal.SIGSTOP)
    try:
        hello.plane.stop_api()
        hello.plane.start_api()
        hello.plane.restart_controllers()
        hello.kubectl("delete", "service", "second")
        hello.plane.apply(SERVICE % ("third", 31009))
        hello.scale("hello", 2)
        hello.plane.wait_endpoints("hello", 2)
        hello.plane.compact()
        hello.plane.stop_api()
        hello.plane.start_api()
        assert all_answer(hello)
    finally:
        os.kill(hello.watch.pid, signal.SIGCONT)
    hello.plane.restart_controllers()
    hello.wait_active("hello", 2, 40)
    hello.wait_active("third", 2, 40)
    assert not hello.services("second")
    assert "services: the version is too old to watch from" in hello.log_text(), hello.log_text()
    hello.scale("hello", 3)
    hello.settle("hello", 3)


def test_sync_once_equals_watch(hello):
    """A single sync of what the watch has applied changes nothing; --dry-run changes nothing ever."""
    hello.stop_watch()
    before = world.lbctl("backends", "list", "-o", "json").stdout
    assert world.lbctl("backends", "sync", *hello.sync_options()).stdout == ""
    hello.scale("hello", 2)
    hello.plane.wait_endpoints("hello", 2)
    assert "+1" in world.lbctl("backends", "sync", "--dry-run", *hello.sync_options()).stdout
    assert world.lbctl("backends", "list", "-o", "json").stdout == before
    assert "+1" in world.lbctl("backends", "sync", *hello.sync_options()).stdout
    hello.wait_active("hello", 2)


def test_from_kubectl(hello):
    """--from takes what kubectl prints, and comes to the same."""
    hello.stop_watch()
    printed = hello.kubectl("get", "services,endpointslices", "-A", "-o", "json").stdout
    watched = hello.backends("hello")
    options = hello.sync_options()[2:]
    world.lbctl("detach", "--all")
    world.lbctl("attach", "eth0")
    world.lbctl("backends", "sync", "--from", "-", *options, text_in=printed)
    assert hello.backends("hello") == watched
    assert all_answer(hello)


def test_killed_watch_leaves_forwarding(hello):
    hello.watch.kill()
    hello.watch.wait()
    assert all_answer(hello)
    hello.scale("hello", 2)
    hello.plane.wait_endpoints("hello", 2)
    hello.start_watch()
    hello.wait_active("hello", 2)
    assert all_answer(hello)


def test_permissions(hello, tmp_path):
    """With a service account: what it may not do is said; list and watch of Services and EndpointSlices are enough."""
    hello.stop_watch()
    role = ROLE.split("---")
    hello.plane.apply(role[0])
    token = hello.kubectl("create", "token", "lbctl").stdout.strip()
    config = json.loads(hello.kubectl("config", "view", "--raw", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config), encoding="ascii")
    options = ["--kubeconfig", path, *hello.sync_options()[2:]]
    try:
        refused = world.lbctl("backends", "sync", *options, check=False)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
        assert "403" in refused.stderr and "list" in refused.stderr
        assert "services" in refused.stderr or "endpointslices" in refused.stderr
        assert hello.backends("hello")
        hello.plane.apply("---".join(role[1:]))
        hello.start_watch(*map(str, options))
        hello.scale("hello", 2)
        hello.settle("hello", 2)
    finally:
        hello.kubectl("delete", "clusterrole,clusterrolebinding,serviceaccount", "lbctl", check=False)


def test_many_services_at_once(hello):
    """Twenty Services over five Pods come in few batches and all work; and go."""
    hello.scale("hello", 5)
    hello.plane.apply("---".join(SERVICE % (f"many-{number}", 31100 + number) for number in range(20)))
    hello.settle("hello", 5)
    world.wait_for(lambda: sum(len(addresses) for number in range(20)
                               for addresses in hello.backends(f"many-{number}").values()) == 20 * 2 * 5, 20,
                   "200 backends", 0.2)
    assert len(set(hello.answers("http://192.0.2.1:31119/", 40))) == 5
    hello.kubectl("delete", "services", *(f"many-{number}" for number in range(20)))
    world.wait_for(lambda: len(world.lbctl_json("services", "list")) == 3, 10, "the 20 services to go", 0.1)
