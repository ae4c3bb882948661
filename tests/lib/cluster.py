# SPDX-License-Identifier: GPL-2.0
"""A real control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and kwok for nodes and the life of
Pods) on the sandbox's loopback, and a body for every Pod: a network namespace with the Pod's address, in which a small HTTP
server answers `Hostname: <pod name>`."""

import base64
import ctypes
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import world

BIN = None
API_PORT, ETCD_PORT, PEER_PORT, KCM_PORT, SCHEDULER_PORT = range(16440, 16445)
CLONE_NEWNET = 0x40000000
HELLO = world.TOP / "tests/kubernetes/hello.yaml"
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority-data: {ca}}}}}]
users: [{{name: u, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
NODE_OBJECT = """\
{{apiVersion: v1, kind: Node, metadata: {{name: {name}, annotations: {{kwok.x-k8s.io/node: fake}},
  labels: {{kubernetes.io/hostname: {name}}}}}}}
"""


def binaries():
    """The folder with the control plane; built if need be."""
    global BIN
    if not BIN:
        BIN = pathlib.Path(subprocess.run([world.TOP / "scripts/get-kube"], check=True, text=True,
                                          stdout=subprocess.PIPE).stdout.strip())
    return BIN


class ControlPlane:
    """Starts in about ten seconds. `folder` holds keys, logs and etcd's data."""

    def __init__(self, folder, node_address="192.0.2.1", pod_cidr="10.244.0.1/16"):
        self.folder = pathlib.Path(folder)
        self.node_address, self.pod_cidr = node_address, pod_cidr
        self.processes = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.make_keys()

    # Keys: EC, made by openssl at once.

    def openssl(self, *arguments):
        world.run("openssl", *arguments)

    def path(self, name):
        return str(self.folder / name)

    def make_keys(self):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-subj", "/CN=test-ca", "-days", "30", "-keyout", self.path("ca.key"), "-out",
                     self.path("ca.crt"), "-addext", "basicConstraints=critical,CA:TRUE")
        self.certificate("server", "/CN=kube-apiserver",
                         "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost")
        self.certificate("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth")
        self.openssl("genrsa", "-out", self.path("sa.key"), "2048")
        self.openssl("rsa", "-in", self.path("sa.key"), "-pubout", "-out", self.path("sa.pub"))
        encoded = {name: base64.b64encode((self.folder / file).read_bytes()).decode()
                   for name, file in (("ca", "ca.crt"), ("certificate", "admin.crt"), ("key", "admin.key"))}
        (self.folder / "kubeconfig").write_text(KUBECONFIG.format(port=API_PORT, **encoded),
                                                encoding="ascii")

    def certificate(self, name, subject, extensions):
        (self.folder / f"{name}.ext").write_text(extensions + "\n", encoding="ascii")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-subj", subject, "-keyout", self.path(f"{name}.key"), "-out",
                     self.path(f"{name}.csr"))
        self.openssl("x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path("ca.crt"), "-CAkey",
                     self.path("ca.key"), "-CAcreateserial", "-days", "30", "-extfile",
                     self.path(f"{name}.ext"), "-out", self.path(f"{name}.crt"))

    # Processes, in order.

    @property
    def kubeconfig(self):
        return self.path("kubeconfig")

    def spawn(self, name, *arguments):
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            [binaries() / name, *arguments], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder),
                 "KUBECONFIG": self.kubeconfig})
        log.close()

    def start(self, say=lambda text: None):
        say("etcd")
        url = f"http://127.0.0.1:{ETCD_PORT}"
        peer = f"http://127.0.0.1:{PEER_PORT}"
        self.spawn("etcd", "--name=t", f"--data-dir={self.path('data')}", f"--listen-client-urls={url}",
                   f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}",
                   f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=t={peer}")
        say("kube-apiserver")
        self.start_api()
        say("kube-controller-manager, kube-scheduler, kwok")
        self.start_controllers()
        self.start_kwok()
        for name in ("node-a", "node-b"):
            self.apply(NODE_OBJECT.format(name=name))
        world.wait_for(lambda: self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
                       60, "the controllers", 0.2)

    def start_controllers(self):
        """The grace period: kwok lets a node be heard of only when something about it changes, at the latest when it is said to be
        not ready; until kwok has mended that, so are all its Pods."""
        self.spawn("kube-controller-manager", f"--kubeconfig={self.kubeconfig}", "--bind-address=127.0.0.1",
                   f"--secure-port={KCM_PORT}", f"--cert-dir={self.path('kcm')}", "--leader-elect=false",
                   "--use-service-account-credentials=false", "--node-monitor-grace-period=24h",
                   f"--service-account-private-key-file={self.path('sa.key')}",
                   f"--root-ca-file={self.path('ca.crt')}")
        self.spawn("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
                   "--bind-address=127.0.0.1", f"--secure-port={SCHEDULER_PORT}",
                   f"--cert-dir={self.path('scheduler')}")

    def start_kwok(self):
        stages = [f"--config={stage}" for stage in sorted((binaries() / "stages").glob("*.yaml"))]
        self.spawn("kwok", f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes=true",
                   f"--cidr={self.pod_cidr}", f"--node-ip={self.node_address}", *stages)

    def restart_controllers(self):
        """After the API server was away: they would come back in half a minute, when they dare to ask again. Not kwok, which
        would forget which addresses it has given out."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            process = self.processes.pop(name)
            process.kill()
            process.wait()
        self.start_controllers()

    def start_api(self):
        self.spawn("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
                   "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                   f"--secure-port={API_PORT}", "--endpoint-reconciler-type=none",
                   f"--cert-dir={self.path('api')}", f"--tls-cert-file={self.path('server.crt')}",
                   f"--tls-private-key-file={self.path('server.key')}",
                   f"--client-ca-file={self.path('ca.crt')}", "--authorization-mode=Node,RBAC",
                   "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
                   "--service-account-issuer=https://kubernetes.default.svc",
                   f"--service-account-key-file={self.path('sa.pub')}",
                   f"--service-account-signing-key-file={self.path('sa.key')}")
        world.wait_for(self.ready, 120, "kube-apiserver", 0.1)

    def ready(self):
        if self.processes["kube-apiserver"].poll() is not None:
            raise world.Failed("kube-apiserver ended: see " + self.path("kube-apiserver.log"))
        try:
            return self.get("/readyz").read() == b"ok"
        except (OSError, urllib.error.URLError):
            return False

    def stop_api(self):
        """At once: after SIGTERM it would linger for its open watches."""
        process = self.processes.pop("kube-apiserver")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    # Requests.

    def get(self, path, timeout=5):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.load_cert_chain(self.path("admin.crt"), self.path("admin.key"))
        return urllib.request.urlopen(f"https://127.0.0.1:{API_PORT}{path}", timeout=timeout,
                                      context=context)

    def kubectl(self, *arguments, **options):
        return world.run(binaries() / "kubectl", f"--kubeconfig={self.kubeconfig}",
                         f"--cache-dir={self.path('cache')}", *arguments, **options)

    def apply(self, text):
        return self.kubectl("apply", "-f", "-", text_in=text)

    def endpoints(self, service):
        """Addresses of a service's ready endpoints."""
        slices = json.loads(self.kubectl("get", "endpointslices", "-l",
                                         f"kubernetes.io/service-name={service}", "-o", "json").stdout)
        return sorted(endpoint["addresses"][0] for item in slices["items"]
                      for endpoint in item["endpoints"] or []
                      if endpoint["conditions"].get("ready") is not False)

    def compact(self):
        """Makes etcd forget all but the present, so that no older version can be watched from."""
        def ask(what, body):
            request = urllib.request.Request(f"http://127.0.0.1:{ETCD_PORT}/v3/kv/{what}", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        revision = ask("range", {"key": "AA=="})["header"]["revision"]
        ask("compaction", {"revision": revision, "physical": True})

    def wait_endpoints(self, service, count, seconds=30):
        try:
            world.wait_for(lambda: len(self.endpoints(service)) == count, seconds, f"{count} endpoints of {service}", 0.05)
        except world.Failed as error:
            there = self.kubectl("get", "deployments,replicasets,pods,endpointslices,events", "-o", "wide").stdout
            raise world.Failed(f"{error}; the cluster has\n{there}") from None


class Body:
    """A network namespace on the node's bridge, with the addresses of a Pod and a server on each of its ports."""

    made = 0

    def __init__(self, bodies, name, addresses, ports):
        Body.made += 1
        self.bodies, self.addresses = bodies, []
        self.netns = self.port = f"pod{Body.made}"
        self.host = world.Host(self.netns)
        world.sh(f"ip link add {self.port} type veth peer name eth0 netns {self.netns};"
                 f"ip link set {self.port} master {bodies.bridge} up")
        self.host.run("ip", "link", "set", "eth0", "up")
        self.servers = [start_in(self.netns, lambda port=port: HttpServer(name, port)) for port in ports]
        self.also(addresses)

    def also(self, addresses):
        """Takes more addresses, of another family."""
        for address in addresses:
            if address in self.addresses:
                continue
            gateway, length = next(text.split("/") for text in self.bodies.gateways if (":" in text) == (":" in address))
            self.host.address("eth0", f"{address}/{length}")
            self.host.route("default", "via", gateway)
            self.addresses.append(address)

    def bury(self):
        for server in self.servers:
            server.close()
        world.run("ip", "link", "del", self.port, check=False)
        world.run("ip", "netns", "del", self.netns, check=False)


class Bodies:
    """Gives Pods bodies as they get addresses, behind a bridge of the node, and takes them away when the Pods go."""

    def __init__(self, plane, bridge="cni0", gateways=("10.244.0.1/16", "fd00:10:244::1/64")):
        self.plane, self.bridge, self.gateways = plane, bridge, gateways
        self.bodies, self.stopping = {}, False
        world.run("ip", "link", "add", bridge, "type", "bridge")
        world.NODE.address(bridge, *gateways)
        world.run("ip", "link", "set", bridge, "up")
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        """Lists and watches, again and again: the API server may come and go."""
        while not self.stopping:
            try:
                self.list_and_watch()
            except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException):
                pass
            except world.Failed as error:
                print(f"bodies: {error}", flush=True)
            time.sleep(0.05)

    def list_and_watch(self):
        with self.plane.get("/api/v1/pods") as answer:
            pods = json.load(answer)
        names = {self.seen(pod) for pod in pods["items"]}
        for key in set(self.bodies) - names:
            self.bury(key)
        version = pods["metadata"]["resourceVersion"]
        with self.plane.get(f"/api/v1/pods?watch=1&resourceVersion={version}", timeout=600) as watch:
            for line in watch:
                event = json.loads(line)
                if event["type"] == "DELETED":
                    self.bury(self.key(event["object"]))
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self.seen(event["object"])

    @staticmethod
    def key(pod):
        return pod["metadata"]["namespace"] + "/" + pod["metadata"]["name"]

    def seen(self, pod):
        key = self.key(pod)
        addresses = [entry["ip"] for entry in pod.get("status", {}).get("podIPs", [])]
        if key in self.bodies:
            self.bodies[key].also(addresses)
        elif addresses:
            self.give(key, addresses, pod)
        return key

    def give(self, key, addresses, pod):
        # kwok hands out an address again while the last Pod that had it is still being deleted.
        for old in [old for old, body in self.bodies.items() if addresses[0] in body.addresses]:
            self.bury(old)
        ports = {port["containerPort"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        self.bodies[key] = Body(self, pod["metadata"]["name"], addresses, ports or {8080})

    def bury(self, key):
        body = self.bodies.pop(key, None)
        if body:
            body.bury()

    def wait(self, addresses):
        """Until all these addresses have a body: an endpoint may be ready, and known to lbctl, some milliseconds before."""
        world.wait_for(lambda: set(addresses) <= {address for body in list(self.bodies.values())
                                                  for address in body.addresses}, 10, f"bodies for {addresses}")


def start_in(netns, make):
    """Makes something in a network namespace: in a thread, because only that one changes its namespace. Its sockets stay."""
    made = []

    def inside():
        with open(f"/run/netns/{netns}", encoding="ascii") as file:
            if ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET):
                raise OSError("setns")
        made.append(make())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return made[0]


class HttpServer:
    """Answers every request with the Pod's name."""

    def __init__(self, name, port):
        self.answer = f"Hostname: {name}\n".encode()
        self.socket = socket.create_server(("::", port), family=socket.AF_INET6, backlog=256,
                                           dualstack_ipv6=True)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.reply, args=(connection,), daemon=True).start()

    def reply(self, connection):
        head = (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                b"Content-Length: " + str(len(self.answer)).encode() + b"\r\n\r\n")
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                part = connection.recv(4096)
                if not part:
                    return
                request += part
            connection.sendall(head + self.answer)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)    # wakes accept(), which would keep the namespace alive
        self.socket.close()
