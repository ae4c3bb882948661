# SPDX-License-Identifier: GPL-2.0
"""The main job, as its users do it: Deployments scale, requests follow."""

import json
import time

import features
import pytest
import world

URL = "http://192.0.2.1:31001/"


def endpoints_described(lab, service):
    (line,) = [line for line in lab.kubectl("describe", "service", service).stdout.splitlines()
               if line.startswith("Endpoints:")]
    return line


def test_walk_a(hello):
    """NodePort, round robin: one Pod, three in rotation, none and refused at once, one again."""
    one = set(hello.answers(URL, 5))
    assert len(one) == 1 and one.pop().startswith("Hostname: hello-")

    hello.scale("hello", 3)
    hello.plane.wait_endpoints("hello", 3)
    ready = time.monotonic()
    hello.wait_active("hello", 3, 1)
    assert time.monotonic() - ready < 1
    assert endpoints_described(hello, "hello").count(":8080") == 3
    order = hello.answers(URL, 9)
    assert order == order[:3] * 3 and len(set(order)) == 3

    hello.scale("hello", 0)
    hello.settle("hello", 0)
    for _ in range(3):
        body, seconds, status = hello.curl(URL)
        assert (body, status) == ("", 7) and seconds < 0.5  # 7: could not connect

    hello.scale("hello", 1)
    hello.plane.wait_endpoints("hello", 1)
    hello.wait_active("hello", 1, 1)
    body, _, status = hello.curl(URL)
    assert status == 0 and body.startswith("Hostname: hello-")


def test_walk_b(lab):
    """LoadBalancer: cluster IP, NodePort and ingress address spread over four Pods, which share one port."""
    lab.kubectl("create", "deployment", "tomcat-deployment", "--image=localhost/tomcat:1", "--port=8080")
    lab.scale("tomcat-deployment", 4)
    lab.kubectl("expose", "deployment", "tomcat-deployment", "--type=LoadBalancer", "--port=8080",
                "--target-port", "8080", "--name=tomcat-load-balancer")
    lab.kubectl("patch", "service", "tomcat-load-balancer", "--subresource=status", "--type=merge", "-p",
                json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.80"}]}}}))
    lab.settle("tomcat-load-balancer", 4)
    described = lab.kubectl("describe", "service", "tomcat-load-balancer").stdout
    assert "LoadBalancer Ingress:" in described and "203.0.113.80" in described
    line = endpoints_described(lab, "tomcat-load-balancer")
    assert line.count(":8080") == 3 and "+ 1 more..." in line

    spec = lab.get("service", "tomcat-load-balancer")["spec"]
    vips = (f"{spec['clusterIP']}:8080", f"192.0.2.1:{spec['ports'][0]['nodePort']}", "203.0.113.80:8080")
    world.wait_for(lambda: sorted(lab.services("tomcat-load-balancer")) == sorted(f"{vip}/tcp" for vip in vips), 5,
                   "the three VIPs")
    lab.wait_active("tomcat-load-balancer", 4)
    for vip in vips:
        answers = lab.answers(f"http://{vip}/", 60)
        assert len(set(answers)) == 4, (vip, set(answers))
        assert all(answer.startswith("Hostname: tomcat-deployment-") for answer in answers)


def test_dual_stack(lab):
    """Each family of a Service is a VIP of its own, with the endpoints of that family."""
    lab.kubectl("apply", "-f", "-", text_in="""
apiVersion: apps/v1
kind: Deployment
metadata: {name: both}
spec:
  replicas: 2
  selector: {matchLabels: {run: both}}
  template:
    metadata: {labels: {run: both}}
    spec: {containers: [{name: c, image: "localhost/x:1", ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {run: both}
  ports: [{port: 80, targetPort: 8080, nodePort: 31005}]
""")
    lab.plane.wait_endpoints("both", 2)
    # kwok gives out addresses of one family only.
    for number, pod in enumerate(lab.get("pods", "-l", "run=both")["items"], 1):
        addresses = [{"ip": pod["status"]["podIP"]}, {"ip": f"fd00:10:244::{number:x}00"}]
        lab.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p",
                    json.dumps({"status": {"podIPs": addresses}}))
    lab.plane.wait_endpoints("both", 4)
    active = lab.wait_active("both", 2)
    cluster_ips = lab.get("service", "both")["spec"]["clusterIPs"]
    assert sorted(active) == sorted([f"{cluster_ips[0]}:80/tcp", f"[{cluster_ips[1]}]:80/tcp", "192.0.2.1:31005/tcp",
                                     "[2001:db8:c::1]:31005/tcp"])
    for vip, addresses in active.items():
        assert all(address.startswith("[fd00:10:244::") == vip.startswith("[") for address in addresses)
        assert len(set(lab.answers(f"http://{vip.removesuffix('/tcp')}/", 30))) == 2, vip


def test_counters_agree_with_requests(hello):
    """bpftool's dump and the iterator count as many flows as curl made requests."""
    hello.answers(URL, 12)

    def dumped():
        dump = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned",
                                    f"{world.PIN_DIR}/backend_stats").stdout)
        return sum(cpu["value"]["flows"] for entry in dump for cpu in entry["formatted"]["values"])

    world.wait_for(lambda: dumped() == 12, 2, "bpftool's dump to show the requests")
    if missing := features.no_iterators():
        pytest.skip(missing)
    table = world.run("cat", f"{world.PIN_DIR}/counters").stdout.splitlines()[1:]
    assert sum(int(line.split()[5]) for line in table) == 12


def test_readiness_flap(hello):
    """A Pod that is not ready gets no new requests, and gets them again when it is."""
    hello.scale("hello", 2)
    hello.settle("hello", 2)
    pod = hello.get("pods", "-l", "run=hello")["items"][0]

    def set_ready(ready):
        conditions = [condition | {"status": "True" if ready else "False"}
                      if condition["type"] in ("Ready", "ContainersReady") else condition
                      for condition in pod["status"]["conditions"]]
        hello.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p",
                      json.dumps({"status": {"conditions": conditions}}))

    for _ in range(3):
        set_ready(False)
        hello.wait_active("hello", 1)
        assert f"Hostname: {pod['metadata']['name']}" not in hello.answers(URL, 6)
        states = {entry["state"] for entry in world.lbctl_json("backends", "list")
                  if entry["address"] == pod["status"]["podIP"] + ":8080"}
        assert states <= {"down", "draining"} and states
        set_ready(True)
        hello.wait_active("hello", 2)
        assert f"Hostname: {pod['metadata']['name']}" in hello.answers(URL, 2)
