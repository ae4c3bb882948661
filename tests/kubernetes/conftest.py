# SPDX-License-Identifier: GPL-2.0
"""A cluster for the whole group, with a client behind the node's eth0, and a watching lbctl for each test that wants one."""

import json
import subprocess

import cluster
import pytest
import world
from world import Host, NODE, link

NODE_ADDRESS = "192.0.2.1"


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.client = Host("client")
        link(NODE, "eth0", self.client, "eth0", xdp_peer=True)
        NODE.address("eth0", f"{NODE_ADDRESS}/24", "2001:db8:c::1/64")
        self.client.address("eth0", "192.0.2.100/24", "2001:db8:c::100/64")
        self.client.route("default", "via", NODE_ADDRESS)
        self.client.route("default", "via", "2001:db8:c::1")
        world.forwarding(True)
        self.plane = cluster.ControlPlane(folder)
        self.plane.start()
        self.bodies = cluster.Bodies(self.plane)
        self.watch = None

    def kubectl(self, *arguments, **options):
        return self.plane.kubectl(*arguments, **options)

    def start_watch(self, vips="loadbalancer,nodeport,clusterip"):
        """lbctl backends sync --watch; its lines go to a file."""
        self.log = open(self.folder / "watch.log", "w+", encoding="utf-8")
        self.watch = subprocess.Popen(
            [world.LBCTL, "backends", "sync", "--watch", "--kubeconfig", self.plane.kubeconfig, "--vips",
             vips, "--node-address", NODE_ADDRESS], stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=subprocess.STDOUT)
        return self.watch

    def stop_watch(self):
        if self.watch and self.watch.poll() is None:
            self.watch.terminate()
            assert self.watch.wait(10) == 0

    def log_text(self):
        with open(self.folder / "watch.log", encoding="utf-8") as file:
            return file.read()

    def curl(self, url, check=False):
        """(what came, seconds it took, curl's exit status)"""
        result = self.client.run("curl", "-s", "-m", "5", "-w", " %{time_total}", url, check=check)
        body, seconds = result.stdout.rsplit(" ", 1)
        return body.strip(), float(seconds), result.returncode

    def pods_answering(self, url, count):
        return [self.curl(url)[0] for _ in range(count)]

    def backends(self, name):
        """Addresses of the active backends of a Service's ports, by VIP."""
        active = {}
        names = {entry["service"]: entry["name"] for entry in world.lbctl_json("services", "list")}
        for entry in world.lbctl_json("backends", "list"):
            if names[entry["service"]].startswith(name + ":") and entry["state"] == "active":
                active.setdefault(entry["service"], []).append(entry["address"])
        return active

    def wait_active(self, name, count, seconds=10):
        """Until every VIP of a Service has so many active backends."""
        def there():
            active = self.backends(name)
            return active and all(len(found) == count for found in active.values())
        world.wait_for(there, seconds, f"{count} active backends of {name}: {self.log_text()[-500:]}", 0.02)


@pytest.fixture(scope="session")
def session_lab(tmp_path_factory):
    world.reset()
    lab = Lab(tmp_path_factory.mktemp("cluster"))
    yield lab
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
    for service in json.loads(session_lab.kubectl("get", "services", "-o", "json").stdout)["items"]:
        if service["metadata"]["name"] != "kubernetes":
            session_lab.kubectl("delete", "service", service["metadata"]["name"])
    world.wait_for(lambda: not json.loads(session_lab.kubectl("get", "pods", "-o", "json").stdout)["items"],
                   30, "Pods to go", 0.1)
    world.lbctl("detach", "--all")
