# SPDX-License-Identifier: GPL-2.0
"""The main job, as its users do it: Deployments scale, requests follow."""

import json
import time

import world

HELLO = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 1
  selector: {matchLabels: {run: hello}}
  template:
    metadata: {labels: {run: hello}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: hello, image: "localhost/hello:1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: hello, annotations: {xlb.dev/scheduler: rr}}
spec:
  type: NodePort
  selector: {run: hello}
  ports: [{port: 80, targetPort: 8080, nodePort: 31001}]
"""


def scale(lab, name, replicas):
    lab.kubectl("scale", "deployment", name, f"--replicas={replicas}")


def test_walk_a(lab):
    """NodePort, round robin: one Pod, three in rotation, none and refused at once, one again."""
    url = "http://192.0.2.1:31001/"
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    one = set(lab.pods_answering(url, 5))
    assert len(one) == 1 and one.pop().startswith("Hostname: hello-")

    scale(lab, "hello", 3)
    lab.plane.wait_endpoints("hello", 3)
    ready = time.monotonic()
    lab.wait_active("default/hello", 3, 1)
    assert time.monotonic() - ready < 1
    described = lab.kubectl("describe", "service", "hello").stdout
    (line,) = [line for line in described.splitlines() if line.startswith("Endpoints:")]
    assert line.count(":8080") == 3
    order = lab.pods_answering(url, 9)
    assert order == order[:3] * 3 and len(set(order)) == 3

    scale(lab, "hello", 0)
    lab.plane.wait_endpoints("hello", 0)
    world.wait_for(lambda: not lab.backends("default/hello"), 5, "no backends")
    for _ in range(3):
        body, seconds, status = lab.curl(url)
        assert (body, status) == ("", 7) and seconds < 0.5

    scale(lab, "hello", 1)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1, 1)
    body, _, status = lab.curl(url)
    assert status == 0 and body.startswith("Hostname: hello-")


def test_walk_b(lab):
    """LoadBalancer: cluster IP, NodePort and ingress address spread over four Pods, which share one port."""
    lab.kubectl("create", "deployment", "tomcat-deployment", "--image=localhost/tomcat:1", "--port=8080")
    scale(lab, "tomcat-deployment", 4)
    lab.kubectl("expose", "deployment", "tomcat-deployment", "--type=LoadBalancer", "--port=8080",
                "--target-port", "8080", "--name=tomcat-load-balancer")
    lab.kubectl("patch", "service", "tomcat-load-balancer", "--subresource=status", "--type=merge", "-p",
                json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.80"}]}}}))
    lab.plane.wait_endpoints("tomcat-load-balancer", 4)
    lab.wait_active("default/tomcat-load-balancer", 4)
    described = lab.kubectl("describe", "service", "tomcat-load-balancer").stdout
    assert "LoadBalancer Ingress:" in described and "203.0.113.80" in described
    (line,) = [line for line in described.splitlines() if line.startswith("Endpoints:")]
    assert line.count(":8080") == 3 and "+ 1 more..." in line

    spec = json.loads(lab.kubectl("get", "service", "tomcat-load-balancer", "-o", "json").stdout)["spec"]
    urls = (f"http://{spec['clusterIP']}:8080/", f"http://192.0.2.1:{spec['ports'][0]['nodePort']}/",
            "http://203.0.113.80:8080/")
    assert len(lab.backends("default/tomcat-load-balancer")) == 3
    for url in urls:
        answers = lab.pods_answering(url, 60)
        assert len(set(answers)) == 4, (url, set(answers))
        assert all(answer.startswith("Hostname: tomcat-deployment-") for answer in answers)


def test_counters_agree_with_requests(lab):
    """bpftool's dump and the iterator count as many flows as curl made requests."""
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    lab.pods_answering("http://192.0.2.1:31001/", 12)
    dump = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned",
                                f"{world.PIN_DIR}/backend_stats").stdout)
    assert sum(cpu["value"]["flows"] for entry in dump for cpu in entry["formatted"]["values"]) == 12
    table = world.run("cat", f"{world.PIN_DIR}/counters").stdout.splitlines()[1:]
    assert sum(int(line.split()[5]) for line in table) == 12


def test_api_server_goes_and_comes(lab):
    """Forwarding goes on without the API server; later changes arrive; the watch lives through it, 410 included."""
    url = "http://192.0.2.1:31001/"
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    lab.plane.stop_api()
    time.sleep(2)
    assert all(answer.startswith("Hostname: hello-") for answer in lab.pods_answering(url, 5))
    lab.plane.start_api()
    scale(lab, "hello", 3)
    lab.plane.wait_endpoints("hello", 3)
    lab.wait_active("default/hello", 3, 40)
    assert len(set(lab.pods_answering(url, 9))) == 3
    assert lab.watch.poll() is None


def test_sync_once_equals_watch(lab):
    """A single sync of what the watch has applied changes nothing; --dry-run changes nothing ever."""
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    lab.stop_watch()
    options = ("--kubeconfig", lab.plane.kubeconfig, "--vips", "loadbalancer,nodeport,clusterip",
               "--node-address", "192.0.2.1")
    before = world.lbctl("backends", "list", "-o", "json").stdout
    assert world.lbctl("backends", "sync", *options).stdout == ""
    scale(lab, "hello", 2)
    lab.plane.wait_endpoints("hello", 2)
    assert "+1" in world.lbctl("backends", "sync", "--dry-run", *options).stdout
    assert world.lbctl("backends", "list", "-o", "json").stdout == before
    assert "+1" in world.lbctl("backends", "sync", *options).stdout
    lab.wait_active("default/hello", 2)


def test_killed_watch_leaves_forwarding(lab):
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    lab.watch.kill()
    lab.watch.wait()
    assert all(answer.startswith("Hostname: hello-")
               for answer in lab.pods_answering("http://192.0.2.1:31001/", 5))
    lab.start_watch()
    scale(lab, "hello", 2)
    lab.plane.wait_endpoints("hello", 2)
    lab.wait_active("default/hello", 2)


def test_service_deleted(lab):
    lab.plane.apply(HELLO)
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    lab.kubectl("delete", "service", "hello")
    world.wait_for(lambda: not any(entry["name"].startswith("default/hello")
                                   for entry in world.lbctl_json("services", "list")), 5, "the service to go")


def test_readiness_flap(lab):
    """A Pod that is not ready gets no new requests, and gets them again when it is."""
    lab.plane.apply(HELLO.replace("replicas: 1", "replicas: 2"))
    lab.plane.wait_endpoints("hello", 2)
    lab.wait_active("default/hello", 2)
    pod = json.loads(lab.kubectl("get", "pods", "-l", "run=hello", "-o", "json").stdout)["items"][0]

    def set_ready(ready):
        conditions = [condition | {"status": "True" if ready else "False"}
                      if condition["type"] in ("Ready", "ContainersReady") else condition
                      for condition in pod["status"]["conditions"]]
        lab.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p",
                    json.dumps({"status": {"conditions": conditions}}))

    set_ready(False)
    lab.wait_active("default/hello", 1)
    assert len(set(lab.pods_answering("http://192.0.2.1:31001/", 6))) == 1
    states = {entry["state"] for entry in world.lbctl_json("backends", "list")
              if entry["address"] == pod["status"]["podIP"] + ":8080"}
    assert states <= {"down", "draining"} and states
    set_ready(True)
    lab.wait_active("default/hello", 2)


def test_services_that_are_none_of_ours(lab):
    """Headless and ExternalName Services make no VIPs."""
    lab.plane.apply(HELLO + """
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {run: hello}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {type: ExternalName, externalName: example.org}}
""")
    lab.plane.wait_endpoints("hello", 1)
    lab.wait_active("default/hello", 1)
    names = {entry["name"].split(":")[0] for entry in world.lbctl_json("services", "list")}
    assert "default/headless" not in names and "default/outside" not in names


def test_service_without_selector(lab):
    """User-made slices are taken."""
    lab.plane.apply("""
{apiVersion: v1, kind: Service, metadata: {name: manual}, spec: {type: NodePort, ports: [{name: http, port: 80, nodePort: 31002}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
ports: [{name: http, port: 9000, protocol: TCP}]
endpoints: [{addresses: [10.244.9.9]}]
""")
    lab.wait_active("default/manual", 1)
    assert set(sum(lab.backends("default/manual").values(), [])) == {"10.244.9.9:9000"}


def test_named_target_port_differs_between_pods(lab):
    """Two Pods of one Service resolve the port's name to different numbers."""
    for name, port in (("first", 8080), ("second", 8081)):
        lab.plane.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{run: named}}}}
spec: {{containers: [{{name: c, image: "localhost/x:1", ports: [{{name: http, containerPort: {port}}}]}}]}}
""")
    lab.plane.apply("""
{apiVersion: v1, kind: Service, metadata: {name: named}, spec: {type: NodePort, selector: {run: named},
 ports: [{port: 80, targetPort: http, nodePort: 31003}]}}
""")
    lab.plane.wait_endpoints("named", 2)
    lab.wait_active("default/named", 2)
    for addresses in lab.backends("default/named").values():
        assert sorted(address.rsplit(":", 1)[1] for address in addresses) == ["8080", "8081"]
