# SPDX-License-Identifier: GPL-2.0
"""Services of all kinds: which become VIPs, and with which backends."""

import world

NODE_PORT = "http://192.0.2.1"


def test_service_deleted(hello):
    hello.kubectl("delete", "service", "hello")
    world.wait_for(lambda: not hello.services("hello"), 5, "the service to go")
    assert not world.lbctl_json("backends", "list")


def test_services_that_are_none_of_ours(hello):
    """Headless and ExternalName Services, another proxy's, and the address of another class make no VIPs."""
    hello.plane.apply("""
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {run: hello}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {type: ExternalName, externalName: example.org}}
---
apiVersion: v1
kind: Service
metadata: {name: proxied, labels: {service.kubernetes.io/service-proxy-name: another}}
spec: {type: NodePort, selector: {run: hello}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: classy}
spec: {type: LoadBalancer, loadBalancerClass: example.org/other, selector: {run: hello}, ports: [{port: 80, targetPort: 8080}]}
---
{apiVersion: v1, kind: Service, metadata: {name: last}, spec: {selector: {run: hello}, ports: [{port: 80, targetPort: 8080}]}}
""")
    hello.kubectl("patch", "service", "classy", "--subresource=status", "--type=merge", "-p",
                  '{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.81"}]}}}')
    hello.settle("last", 1)
    for name in ("headless", "outside", "proxied"):
        assert not hello.services(name), name
    assert "203.0.113.81:80/tcp" not in hello.services("classy")


def test_vips_are_opted_in(lab, hello):
    """By default only what a LoadBalancer Service's status names."""
    lab.stop_watch()
    lab.start_watch("--kubeconfig", lab.plane.kubeconfig)
    world.wait_for(lambda: not lab.services("hello"), 5, "the NodePort and the cluster IP to go")
    lab.kubectl("patch", "service", "hello", "--type=merge", "-p", '{"spec": {"type": "LoadBalancer"}}')
    lab.kubectl("patch", "service", "hello", "--subresource=status", "--type=merge", "-p",
                '{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.82"}]}}}')
    world.wait_for(lambda: lab.services("hello") == ["203.0.113.82:80/tcp"], 5, "the load balancer's address")
    lab.wait_active("hello", 1)
    assert lab.curl("http://203.0.113.82/")[0].startswith("Hostname: hello-")


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
    active = lab.wait_active("manual", 1)
    assert set(sum(active.values(), [])) == {"10.244.9.9:9000"}
    lab.kubectl("delete", "endpointslice", "manual-1")
    lab.wait_active("manual", 0)


def test_named_target_port_differs_between_pods(lab):
    """Two Pods of one Service resolve the port's name to different numbers; both answer."""
    for name, port in (("first", 8080), ("second", 8081)):
        lab.plane.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{run: named}}}}
spec: {{containers: [{{name: c, image: "localhost/x:1", ports: [{{name: http, containerPort: {port}}}]}}]}}
""")
    lab.plane.apply("""
{apiVersion: v1, kind: Service, metadata: {name: named, annotations: {xlb.dev/scheduler: rr}}, spec: {type: NodePort,
 selector: {run: named}, ports: [{port: 80, targetPort: http, nodePort: 31003}]}}
""")
    for addresses in lab.settle("named", 2).values():
        assert sorted(address.rsplit(":", 1)[1] for address in addresses) == ["8080", "8081"]
    assert set(lab.answers(f"{NODE_PORT}:31003/", 2)) == {"Hostname: first", "Hostname: second"}


def test_several_ports_of_one_service(lab):
    """Each port is a VIP of its own, with its own target; TCP and UDP of one number too."""
    lab.plane.apply("""
apiVersion: v1
kind: Pod
metadata: {name: many, labels: {run: many}}
spec: {containers: [{name: c, image: "localhost/x:1", ports: [{containerPort: 8080}, {containerPort: 8081}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: many}
spec:
  type: NodePort
  selector: {run: many}
  ports:
  - {name: one, port: 80, targetPort: 8080, nodePort: 31006}
  - {name: two, port: 81, targetPort: 8081, nodePort: 31007}
  - {name: dns, port: 80, targetPort: 8081, nodePort: 31006, protocol: UDP}
""")
    active = lab.settle("many", 1)
    assert {vip: found[0].rsplit(":", 1)[1] for vip, found in active.items() if vip.startswith("192.0.2.1:")} == {
        "192.0.2.1:31006/tcp": "8080", "192.0.2.1:31007/tcp": "8081", "192.0.2.1:31006/udp": "8081"}
    assert lab.curl(f"{NODE_PORT}:31006/")[0] == lab.curl(f"{NODE_PORT}:31007/")[0] == "Hostname: many"


def test_port_changes(hello):
    """A new NodePort takes the place of the old one."""
    hello.kubectl("patch", "service", "hello", "--type=json", "-p",
                  '[{"op": "replace", "path": "/spec/ports/0/nodePort", "value": 31008}]')
    world.wait_for(lambda: "192.0.2.1:31008/tcp" in hello.services("hello"), 5, "the new port")
    hello.wait_active("hello", 1)
    assert "192.0.2.1:31001/tcp" not in hello.services("hello")
    assert hello.curl(f"{NODE_PORT}:31008/")[0].startswith("Hostname: hello-")
