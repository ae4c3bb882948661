# SPDX-License-Identifier: GPL-2.0
"""A cluster for the whole group, with a client behind the node's eth0, and a watching lbctl for each test that wants one."""

import json
import subprocess

import cluster
import pytest
import world
from world import Host, NODE, link

NODE_ADDRESSES = "192.0.2.1,2001:db8:c::1"


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.client = Host("client")
        link(NODE, "eth0", self.client, "eth0", xdp_peer=True)
        NODE.address("eth0", "192.0.2.1/24", "2001:db8:c::1/64")
        self.client.address("eth0", "192.0.2.100/24", "2001:db8:c::100/64")
        self.client.route("default", "via", "192.0.2.1")
        self.client.route("default", "via", "2001:db8:c::1")
        world.forwarding(True)
        self.plane = cluster.ControlPlane(folder)
        self.plane.start()
        self.bodies = cluster.Bodies(self.plane)
        self.watch, self.log_path = None, folder / "watch.log"

    def kubectl(self, *arguments, **options):
        return self.plane.kubectl(*arguments, **options)

    def get(self, *what):
        return json.loads(self.kubectl("get", *what, "-o", "json").stdout)

    def scale(self, name, replicas):
        self.kubectl("scale", "deployment", name, f"--replicas={replicas}")

    # lbctl.

    def sync_options(self, vips="loadbalancer,nodeport,clusterip"):
        return ["--kubeconfig", self.plane.kubeconfig, "--vips", vips, "--node-address", NODE_ADDRESSES]

    def start_watch(self, *options):
        """lbctl backends sync --watch; its lines go to a file."""
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.watch = subprocess.Popen(
                [world.LBCTL, "backends", "sync", "--watch", "-v", *(options or self.sync_options())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        return self.watch

    def stop_watch(self):
        if self.watch and self.watch.poll() is None:
            self.watch.terminate()
            assert self.watch.wait(10) == 0

    def log_text(self):
        return self.log_path.read_text(encoding="utf-8")

    def services(self, name):
        """VIPs of a Service."""
        return [entry["service"] for entry in world.lbctl_json("services", "list")
                if entry["name"].startswith(f"default/{name}:")]

    def backends(self, name):
        """Addresses of the active backends of a Service's ports, by VIP."""
        active = {vip: [] for vip in self.services(name)}
        for entry in world.lbctl_json("backends", "list"):
            if entry["service"] in active and entry["state"] == "active":
                active[entry["service"]].append(entry["address"])
        return active

    def wait_active(self, name, count, seconds=10):
        """Until every VIP of a Service has so many active backends, and those have bodies."""
        def there():
            active = self.backends(name)
            return active and all(len(found) == count for found in active.values()) and active
        try:
            active = world.wait_for(there, seconds, f"{count} active backends of {name}", 0.02)
        except world.Failed as error:
            raise world.Failed(f"{error}; lbctl: {self.log_text()[-2000:]}") from None
        pods = {entry["ip"] for pod in self.get("pods")["items"] for entry in pod["status"].get("podIPs", [])}
        addresses = {address.rsplit(":", 1)[0].strip("[]") for found in active.values() for address in found}
        self.bodies.wait(addresses & pods)
        return active

    def settle(self, name, count):
        """Until so many endpoints are ready, and lbctl has them."""
        self.plane.wait_endpoints(name, count)
        return self.wait_active(name, count)

    # The client.

    def curl(self, url):
        """(what came, seconds it took, curl's exit status)"""
        result = self.client.run("curl", "-s", "-m", "5", "-w", " %{time_total}", url, check=False)
        body, seconds = result.stdout.rsplit(" ", 1)
        return body.strip(), float(seconds), result.returncode

    def answers(self, url, count):
        return [self.curl(url)[0] for _ in range(count)]


@pytest.fixture(scope="session")
def session_lab(tmp_path_factory):
    world.reset()
    lab = Lab(tmp_path_factory.mktemp("cluster"))
    yield lab
    lab.bodies.stopping = True
    lab.plane.stop()
    world.reset()


@pytest.fixture
def lab(session_lab):
    """Attached and watching; afterwards the default namespace is as empty as before."""
    world.lbctl("attach", "eth0")
    session_lab.start_watch()
    yield session_lab
    if "kube-apiserver" not in session_lab.plane.processes:
        session_lab.plane.start_api()
    session_lab.stop_watch()
    session_lab.kubectl("delete", "deployments,pods", "--all", "--grace-period=0", "--force", check=False)
    for service in session_lab.get("services")["items"]:
        if service["metadata"]["name"] != "kubernetes":
            session_lab.kubectl("delete", "service", service["metadata"]["name"])
    world.wait_for(lambda: not session_lab.get("pods")["items"], 30, "Pods to go", 0.1)
    world.lbctl("detach", "--all")


@pytest.fixture
def hello(lab):
    """The same with Service hello and one Pod."""
    lab.kubectl("apply", "-f", cluster.HELLO)
    lab.settle("hello", 1)
    return lab
