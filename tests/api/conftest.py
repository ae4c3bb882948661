# SPDX-License-Identifier: GPL-2.0
"""One attached device and one test authority for all tests; an API server of its own, and no services, for each."""

import json
import os
import signal
import subprocess
import threading

import pytest

from apiserver import ApiServer, Certificates
from world import LBCTL, Failed, lbctl, lbctl_json, run, wait_for


@pytest.fixture(scope="session", name="certificates")
def make_certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session", name="node")
def make_node(sandbox):
    run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "outside")
    for device in ("uplink", "outside"):
        run("ip", "link", "set", device, "up")
    run("ip", "addr", "add", "198.51.100.1/24", "dev", "uplink")
    run("ip", "route", "add", "default", "via", "198.51.100.2")
    lbctl("attach", "uplink", "--max-services", "64", "--max-backends", "256")
    yield
    lbctl("detach", "--all")


class Cluster:
    """An API server, a kubeconfig that leads to it, and lbctl with that."""

    def __init__(self, folder, certificates):
        self.folder, self.certificates = folder, certificates
        self.server = ApiServer(certificates)
        self.config = self.server.kubeconfig(folder / "kubeconfig", certificates)
        self.watches = []

    def service(self, name="hello", vip="192.0.2.10", namespace="default", **spec):
        status = {"loadBalancer": {"ingress": [{"ip": vip}]}} if vip else {"loadBalancer": {}}
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
        return self.server.put("services", {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": ports} | spec, "status": status})

    def slice(self, *addresses, service="hello", namespace="default", name=None):
        """An address may be "ADDRESS@NODE"."""
        endpoints = []
        for address in addresses:
            address, _, node = address.partition("@")
            endpoints.append({"addresses": [address], "conditions": {"ready": True}} | ({"nodeName": node} if node else {}))
        return self.server.put("endpointslices", {
            "metadata": {"name": name or f"{service}-1", "namespace": namespace,
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints})

    def sync(self, *options, check=True, config=None, **more):
        return lbctl("backends", "sync", "--kubeconfig", config or self.config, *options, check=check, **more)

    def fails(self, *options, complaint, status=1, **more):
        """The sync ends with this status, one line on stderr that has this in it, and nothing changed."""
        before = self.state()
        result = self.sync(*options, check=False, **more)
        assert (result.returncode, result.stdout) == (status, ""), result
        assert complaint in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("lbctl: "), result.stderr
        assert self.state() == before
        return result.stderr

    def watch(self, *options, config=None, env=None):
        watch = Watch([LBCTL, "backends", "sync", "--watch", "--kubeconfig", config or self.config, *options], env)
        self.watches.append(watch)
        return watch

    @staticmethod
    def state():
        """{"192.0.2.10:80/tcp": {"10.0.0.1:8080": "active"}}"""
        state = {service["service"]: {} for service in lbctl_json("services", "list")}
        for backend in lbctl_json("backends", "list"):
            state[backend["service"]][backend["address"]] = backend["state"]
        return state

    def addresses(self, vip="192.0.2.10:80/tcp"):
        return sorted(address.split(":")[0] for address in self.state().get(vip, {}))

    def close(self):
        for watch in self.watches:
            watch.end(signal.SIGKILL)
        self.server.stop()


class Watch:
    """A running `lbctl backends sync --watch`."""

    def __init__(self, command, env=None):
        self.out, self.err = [], []
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=os.environ | (env or {}))
        self.readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in
                        ((self.process.stdout, self.out), (self.process.stderr, self.err))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))

    def says(self, part, seconds=10):
        """Waits until a line with this in it came, on either stream."""
        try:
            return wait_for(lambda: next((line for line in self.out + self.err if part in line), None), seconds, part)
        except Failed as failure:
            raise Failed(f"{failure}; it said {self.out} and {self.err}") from None

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(10)
        for reader in self.readers:
            reader.join(5)
        return status


@pytest.fixture(name="cluster")
def make_cluster(node, tmp_path, certificates):
    cluster = Cluster(tmp_path, certificates)
    yield cluster
    cluster.close()
    for service in lbctl_json("services", "list"):
        lbctl("services", "del", service["service"], "--force")


@pytest.fixture(name="hello")
def make_hello(cluster):
    """A cluster with one Service of two endpoints, synced."""
    cluster.service()
    cluster.slice("10.0.0.1", "10.0.0.2")
    assert cluster.sync().returncode == 0
    assert cluster.addresses() == ["10.0.0.1", "10.0.0.2"]
    cluster.server.requests.clear()
    return cluster


def as_json(text):
    return [json.loads(line) for line in text.splitlines()]
