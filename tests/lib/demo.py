# SPDX-License-Identifier: GPL-2.0
"""What scripts/demo shows, inside the sandbox: every command is run and printed, with its output, as a user would see it."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cluster
import world
from world import Host, NODE, link

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
NODE_ADDRESS = "192.0.2.1"


def title(text):
    print(f"\n{BOLD}== {text}{PLAIN}", flush=True)


def note(text):
    print(f"{DIM}{text}{PLAIN}", flush=True)


def show(line, command, indent="", check=True, only=None):
    """Prints a command as the user would type it, runs it, prints what it says."""
    print(f"{indent}$ {line}", flush=True)
    result = world.run(*command, check=False)
    for text in (result.stdout + result.stderr).splitlines():
        if only is None or only(text):
            print(f"{indent}{text}", flush=True)
    if check and result.returncode:
        sys.exit(f"demo: '{line}' failed with {result.returncode}")
    return result.stdout


def lbctl(line, **options):
    return show("lbctl " + line, [world.LBCTL, *line.split()], **options)


def topology():
    """A client in a namespace of its own, behind the node's eth0."""
    client = Host("client")
    link(NODE, "eth0", client, "eth0", xdp_peer=True)
    NODE.address("eth0", f"{NODE_ADDRESS}/24")
    client.address("eth0", "192.0.2.100/24")
    client.route("default", "via", NODE_ADDRESS)
    world.forwarding(True)
    return client


def curl_loop(client, url, count):
    """The loop of terminal 2."""
    print(f"client$ for i in $(seq {count}); do curl -s {url} -w 'Time: %{{time_total}}' | grep -E 'Hostname|Time' | xargs; done")
    names = []
    for _ in range(count):
        result = client.sh(f"curl -s -m 5 {url} -w 'Time: %{{time_total}}' | grep -E 'Hostname|Time' | xargs",
                           check=False)
        print("client: " + result.stdout.strip(), flush=True)
        names.append(result.stdout.split()[1] if result.stdout.startswith("Hostname") else None)
    return names


def expect(condition, what):
    if not condition:
        sys.exit(f"demo: {what}")


def counters(requests):
    title("Counters, with no process of ours running")
    note(f"(the backends that are there have answered {requests} requests)")
    if pathlib.Path(world.PIN_DIR, "counters").exists():
        show("cat /sys/fs/bpf/xlb/counters", ["cat", f"{world.PIN_DIR}/counters"])
    else:
        note("(this kernel takes no BPF iterators, so that there is no /sys/fs/bpf/xlb/counters)")
        lbctl("backends list")
    text = show("bpftool map dump pinned /sys/fs/bpf/xlb/backend_stats | head -n 40",
                ["bash", "-c", f"bpftool map dump pinned {world.PIN_DIR}/backend_stats | head -n 40"])
    expect("flows" in text, "bpftool shows no counters")
    flows = sum(entry["flows"] for entry in world.lbctl_json("backends", "list"))
    expect(flows == requests, f"{requests} requests were made, {flows} flows counted")


def static():
    title("A node with a client behind eth0, and three backends on a bridge")
    client = topology()
    world.run("ip", "link", "add", "cni0", "type", "bridge")
    NODE.address("cni0", "10.0.0.1/24")
    world.run("ip", "link", "set", "cni0", "up")
    for number in (5, 6, 7):
        pod = Host(f"pod{number}")
        link(NODE, f"p{number}", pod, "eth0")
        world.run("ip", "link", "set", f"p{number}", "master", "cni0")
        pod.address("eth0", f"10.0.0.{number}/24")
        pod.route("default", "via", "10.0.0.1")
        cluster.start_in(pod.name, lambda number=number: cluster.HttpServer(f"pod{number}", 8080))
    title("Attach, and a service by hand")
    lbctl("attach eth0")
    vip = "203.0.113.10:80/tcp"
    lbctl(f"services add {vip} --scheduler rr")
    lbctl(f"backends add {vip} 10.0.0.5:8080")
    url = "http://203.0.113.10/"
    expect(set(curl_loop(client, url, 3)) == {"pod5"}, "the one backend did not answer")
    title("Two more backends: the loop rotates over the three")
    lbctl(f"backends add {vip} 10.0.0.6:8080")
    lbctl(f"backends add {vip} 10.0.0.7:8080")
    order = curl_loop(client, url, 6)
    expect(order[:3] == order[3:] and len(set(order)) == 3, "no rotation")
    counters(9)
    lbctl("status")
    title("No backends: refused at once")
    for number in (5, 6, 7):
        lbctl(f"backends del {vip} 10.0.0.{number}:8080")
    expect(curl_loop(client, url, 2) == [None, None], "something answered")
    title("Detach leaves nothing behind")
    lbctl("detach --all")
    show("ls /sys/fs/bpf", ["ls", "/sys/fs/bpf"])


class Walks:
    """The two walks of a cluster's user."""

    def __init__(self, client, plane, bodies, folder):
        self.client, self.plane, self.bodies, self.folder = client, plane, bodies, folder

    def kubectl(self, line, **options):
        return show("kubectl " + line, [cluster.binaries() / "kubectl", f"--kubeconfig={self.plane.kubeconfig}",
                                        f"--cache-dir={self.folder}/cache", *line.split()], **options)

    def settle(self, service, count):
        self.plane.wait_endpoints(service, count)
        self.bodies.wait(self.plane.endpoints(service))

        def there():
            names = {entry["service"]: entry["name"] for entry in world.lbctl_json("services", "list")}
            keys = [key for key, name in names.items() if name.startswith(f"default/{service}:")]
            active = [entry for entry in world.lbctl_json("backends", "list")
                      if entry["service"] in keys and entry["state"] == "active"]
            return keys and len(active) == count * len(keys)
        world.wait_for(there, 10, f"{count} backends of {service}")

    def scale(self, name, count, service):
        self.kubectl(f"scale deployment {name} --replicas={count}")
        self.settle(service, count)

    def a(self):
        url = f"http://{NODE_ADDRESS}:31001/"
        title("Walk A: a NodePort Service, round robin; one Pod answers all")
        self.kubectl("apply -f tests/kubernetes/hello.yaml")
        self.settle("hello", 1)
        self.kubectl("get services hello")
        expect(len(set(curl_loop(self.client, url, 3))) == 1, "not one Pod")
        title("Three replicas: the loop rotates")
        self.scale("hello", 3, "hello")
        self.kubectl("describe service hello", only=lambda text: text.startswith("Endpoints"))
        order = curl_loop(self.client, url, 6)
        expect(order[:3] == order[3:] and len(set(order)) == 3 and None not in order, "no rotation")
        title("No replicas: no responses, and at once")
        self.scale("hello", 0, "hello")
        expect(curl_loop(self.client, url, 2) == [None, None], "something answered")
        title("One replica: restored")
        self.scale("hello", 1, "hello")
        expect(None not in curl_loop(self.client, url, 2), "nothing answered")

    def b(self):
        title("Walk B: a LoadBalancer Service; cluster IP, NodePort and its address, spread over four Pods")
        self.kubectl("create deployment tomcat-deployment --image=localhost/tomcat:1 --port=8080")
        self.kubectl("scale --replicas=4 deployment/tomcat-deployment")
        self.kubectl("expose deployment tomcat-deployment --type=LoadBalancer --port=8080 --target-port 8080 "
                     "--name=tomcat-load-balancer")
        note("(no MetalLB here: the address is put into the Service's status by hand)")
        self.plane.kubectl("patch", "service", "tomcat-load-balancer", "--subresource=status", "--type=merge", "-p",
                           json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.80"}]}}}))
        self.settle("tomcat-load-balancer", 4)
        self.kubectl("describe service tomcat-load-balancer",
                     only=lambda text: text.startswith(("IP:", "LoadBalancer Ingress", "NodePort", "Endpoints")))
        spec = json.loads(self.plane.kubectl("get", "service", "tomcat-load-balancer", "-o", "json").stdout)["spec"]
        for url in (f"http://{spec['clusterIP']}:8080/", f"http://{NODE_ADDRESS}:{spec['ports'][0]['nodePort']}/",
                    "http://203.0.113.80:8080/"):
            print(f"client$ for i in $(seq 40); do curl -s {url}; done | sort | uniq -c")
            result = self.client.sh(f"for i in $(seq 40); do curl -s {url}; done | sort | uniq -c")
            print(result.stdout, end="", flush=True)
            expect(len(result.stdout.splitlines()) == 4, f"{url} was not spread over four Pods")


def kubernetes():
    title("A node with a client behind eth0, and a control plane (etcd, kube-apiserver, ..., kwok)")
    client = topology()
    folder = pathlib.Path(tempfile.mkdtemp(dir="/run/xlb"))
    plane = cluster.ControlPlane(folder)
    start = time.monotonic()
    watch = None
    try:
        plane.start(lambda what: note(f"starting {what}"))
        note(f"ready after {time.monotonic() - start:.0f} s")
        bodies = cluster.Bodies(plane)
        title("Attach, and follow the cluster")
        lbctl("attach eth0")
        options = f"--kubeconfig {plane.kubeconfig} --vips loadbalancer,nodeport,clusterip --node-address {NODE_ADDRESS}"
        print(f"$ lbctl backends sync --watch {options} &")
        watch = subprocess.Popen([world.LBCTL, "backends", "sync", "--watch", *options.split()],
                                 stdin=subprocess.DEVNULL)
        walks = Walks(client, plane, bodies, folder)
        walks.a()
        walks.b()
        title("What lbctl shows")
        lbctl("services list")
        lbctl("status")
        title("lbctl is killed: forwarding goes on")
        show("kill -KILL $(pgrep -x lbctl)", ["kill", "-KILL", watch.pid])
        watch.wait()
        expect(None not in curl_loop(client, f"http://{NODE_ADDRESS}:31001/", 2), "nothing answered")
        counters(2 + 120 + 2)
        title("The end: detach leaves nothing behind")
        lbctl("detach --all")
        show("ls /sys/fs/bpf", ["ls", "/sys/fs/bpf"])
    finally:
        if watch and watch.poll() is None:
            watch.kill()
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if "--kubernetes" in sys.argv:
            kubernetes()
        else:
            static()
    except KeyboardInterrupt:
        sys.exit(130)
    except world.Failed as error:
        sys.exit(f"demo: {error}")


main()
