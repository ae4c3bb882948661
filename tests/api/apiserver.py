# SPDX-License-Identifier: GPL-2.0
"""An API server that misbehaves on demand.

It keeps Services, EndpointSlices and Endpoints as a real one does: lists with pages, watches from a version, bookmarks, 410 for
versions that it has forgotten. A test tells it, request by request, what else to do: `server.next(path, Answer(...))`.
"""

import dataclasses
import gzip
import json
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler

KINDS = {"services": ("v1", "Service"), "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
         "endpoints": ("v1", "Endpoints")}
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 410: "Expired", 429: "TooManyRequests",
           500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


@dataclasses.dataclass
class Answer:
    """What a request gets instead of the truth."""
    status: int = 200
    body: str | None = None          # None: a Status object
    headers: dict = dataclasses.field(default_factory=dict)
    cut: int | None = None           # close after so many bytes of the body, although more were announced
    delay: float = 0                 # say nothing for so long first
    lines: list | None = None        # a watch that sends these lines
    after: str = "end"               # of a watch: "end" cleanly, "cut", or "silence"
    then: object = None              # called once the request has come


def status_object(code, message=None):
    return json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message or REASONS.get(code, "failure"),
                       "reason": REASONS.get(code, "Unknown"), "code": code})


def event(kind, item):
    return json.dumps({"type": kind, "object": item})


INITIAL_END = {"k8s.io/initial-events-end": "true"}


def bookmark(resource, version, annotations=None):
    api, kind = KINDS[resource]
    return event("BOOKMARK", {"kind": kind, "apiVersion": api,
                              "metadata": {"resourceVersion": str(version), "annotations": annotations or {}}})


class Certificates:
    """An authority, a server certificate for 127.0.0.1, a client certificate, and an authority that nobody knows."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("ca", "other-ca"):
            self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}", "-days", "9",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        self._issue("server", "subjectAltName=IP:127.0.0.1,DNS:kubernetes.default")
        self._issue("client", "extendedKeyUsage=clientAuth")

    def _run(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def _issue(self, name, extension):
        (self.folder / f"{name}.ext").write_text(extension)
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                  f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                  "-out", f"{name}.crt", "-days", "9", "-extfile", f"{name}.ext")

    def path(self, name):
        return str(self.folder / name)


class ApiServer:
    def __init__(self, certificates=None, client_certificates=False):
        """certificates None: plain HTTP, like kubectl proxy."""
        self.lock = threading.Condition()
        self.objects = {resource: {} for resource in KINDS}
        self.log = []            # (version, resource, type, object)
        self.version = 1000
        self.oldest = 0          # versions before this one are forgotten
        self.versions = ["v1"]   # of discovery.k8s.io
        self.token = "secret"    # None: anybody
        self.streams = False     # whether it does streaming lists; else it refuses them as 1.20 does
        self.planned = {}        # path -> [Answer]
        self.requests = []
        self.stopped = False
        self.tls = None
        if certificates:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificates.path("server.crt"), certificates.path("server.key"))
            if client_certificates:
                self.tls.load_verify_locations(certificates.path("ca.crt"))
                self.tls.verify_mode = ssl.CERT_REQUIRED
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    # --- what tests do ---

    def put(self, resource, item):
        api, kind = KINDS[resource]
        meta = item["metadata"]
        meta.setdefault("namespace", "default")
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        key = (meta["namespace"], meta["name"])
        with self.lock:
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            kind_of_event = "MODIFIED" if key in self.objects[resource] else "ADDED"
            self.objects[resource][key] = item
            self.log.append((self.version, resource, kind_of_event, {"kind": kind, "apiVersion": api} | item))
            self.lock.notify_all()
        return item

    def delete(self, resource, name, namespace="default"):
        api, kind = KINDS[resource]
        with self.lock:
            item = self.objects[resource].pop((namespace, name))
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self.log.append((self.version, resource, "DELETED", {"kind": kind, "apiVersion": api} | item))
            self.lock.notify_all()

    def next(self, path, *answers):
        """The next requests whose path is this one get these answers: "PATH" stands for lists, "watch PATH" for watches, "stream PATH"
        for streaming lists."""
        with self.lock:
            self.planned.setdefault(path, []).extend(answers)

    def forget(self):
        """Like a restart or a compaction: watches end, and only the present version is known."""
        with self.lock:
            self.version += 100
            self.oldest = self.version
            self.lock.notify_all()

    def count(self, part):
        return sum(part in request for request in self.requests)

    def watchers(self):
        with self.lock:
            return sorted(handler.resource for handler in self.server.watching)

    def stop(self):
        """Gone: the port is closed, open connections are cut."""
        with self.lock:
            self.stopped = True
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.server.closed = True
        for connection in list(self.server.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join()

    def start(self):
        """Comes (back) on the same port."""
        self.stopped = False
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.api = self
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def kubeconfig(self, path, certificates=None, user=None, cluster=None):
        """Writes one that leads here; user and cluster replace what would be in there."""
        if cluster is None:
            cluster = {"certificate-authority": certificates.path("ca.crt")} if certificates else {}
        path.write_text(json.dumps({
            "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url} | cluster}],
            "users": [{"name": "u", "user": {"token": "secret"} if user is None else user}]}))
        return str(path)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments):
        self.connections, self.watching, self.api, self.closed = set(), set(), None, False
        super().__init__(*arguments)

    def process_request_thread(self, request, client_address):
        # The handshake belongs to the connection's thread: a client that hangs must not stop the others.
        try:
            if self.api.tls:
                request = self.api.tls.wrap_socket(request, server_side=True)
        except OSError:
            request.close()
            return
        self.connections.add(request)
        if self.closed:  # stopped during the handshake: nobody else cuts this connection
            self.connections.discard(request)
            request.close()
            return
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.discard(request)

    def handle_error(self, request, client_address):
        pass  # clients that go away are none of our troubles


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    resource = None

    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def log_message(self, *_):
        pass

    def do_GET(self):
        api = self.server.api
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        watch = "watch" in query
        kind = "" if not watch else "stream " if "sendInitialEvents" in query else "watch "
        with api.lock:
            api.requests.append(self.path)
            answer = None
            answers = api.planned.get(kind + url.path)
            if answers:
                answer = answers.pop(0)
        if answer and answer.then:
            answer.then()
        if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
            self.send(401, status_object(401))
        elif answer:
            self.misbehave(answer)
        elif url.path == "/apis/discovery.k8s.io":
            self.discovery(api)
        else:
            self.resources(api, url.path.split("/"), query, watch)

    def send(self, status, body, headers=None, cut=None):
        data = body.encode()
        headers = dict(headers or {})
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(data) > 1024 and cut is None:
            data = gzip.compress(data)
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data if cut is None else data[:cut])
        self.wfile.flush()
        if cut is not None:
            self.abort()

    def abort(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def misbehave(self, answer):
        if answer.delay:
            time.sleep(answer.delay)
        if answer.lines is None:
            body = status_object(answer.status) if answer.body is None else answer.body
            self.send(answer.status, body, answer.headers, answer.cut)
            return
        self.begin_stream()
        for line in answer.lines:
            self.chunk(line + "\n")
        if answer.after == "silence":
            time.sleep(60)
        elif answer.after == "cut":
            self.abort()
        else:
            self.chunk("")

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def discovery(self, api):
        if not api.versions:
            self.send(404, status_object(404))
            return
        versions = [{"groupVersion": f"discovery.k8s.io/{name}", "version": name} for name in api.versions]
        self.send(200, json.dumps({"kind": "APIGroup", "apiVersion": "v1", "name": "discovery.k8s.io",
                                   "versions": versions, "preferredVersion": versions[0]}))

    def resources(self, api, words, query, watch):
        """/api/v1[/namespaces/NS]/RESOURCE or /apis/discovery.k8s.io/VERSION[/namespaces/NS]/RESOURCE"""
        resource = words[-1]
        namespace = words[-2] if len(words) > 2 and words[-3] == "namespaces" else None
        group = words[2:4] if words[1] == "apis" else None
        if resource not in KINDS or (group and group[1] not in api.versions):
            self.send(404, status_object(404, "the server could not find the requested resource"))
        elif watch:
            self.watch(api, resource, namespace, query)
        else:
            self.list(api, resource, namespace, group, query)

    @staticmethod
    def selected(item, namespace, query):
        meta = item["metadata"]
        if namespace and meta["namespace"] != namespace:
            return False
        for selector, values in (("labelSelector", meta.get("labels", {})),
                                 ("fieldSelector", {"metadata.name": meta["name"]})):
            if selector in query:
                key, value = query[selector].split("=")
                if values.get(key) != value:
                    return False
        return True

    def list(self, api, resource, namespace, group, query):
        with api.lock:
            items = [item for _, item in sorted(api.objects[resource].items()) if self.selected(item, namespace, query)]
            version = api.version
        meta = {"resourceVersion": str(version)}
        if "limit" in query:
            start, limit = int(query.get("continue", 0)), int(query["limit"])
            if start + limit < len(items):
                meta["continue"] = str(start + limit)
            items = items[start:start + limit]
        version_name = "/".join(group) if group else "v1"
        self.send(200, json.dumps({"kind": KINDS[resource][1] + "List", "apiVersion": version_name,
                                   "metadata": meta, "items": items}))

    def watch(self, api, resource, namespace, query):
        stream = "sendInitialEvents" in query
        if stream and not api.streams:
            self.send(422, status_object(422, "resourceVersionMatch is forbidden for watch"))
            return
        version = int(query.get("resourceVersion", 0))
        end = time.monotonic() + int(query["timeoutSeconds"])
        self.resource = resource
        self.begin_stream()
        if stream:
            version = self.tell_all(api, resource, namespace, query)
        elif version < api.oldest:
            self.chunk(event("ERROR", json.loads(status_object(410, "too old resource version"))) + "\n")
            self.chunk("")
            return
        with api.lock:
            self.server.watching.add(self)
        try:
            self.follow(api, resource, namespace, query, version, end)
        finally:
            with api.lock:
                self.server.watching.discard(self)

    def tell_all(self, api, resource, namespace, query):
        """A streaming list up to its end; the version of that."""
        with api.lock:
            items = [item for _, item in sorted(api.objects[resource].items()) if self.selected(item, namespace, query)]
            version = api.version
        version_name, kind = KINDS[resource]
        for item in items:
            self.chunk(event("ADDED", {"kind": kind, "apiVersion": version_name} | item) + "\n")
        self.chunk(bookmark(resource, version, INITIAL_END) + "\n")
        return version

    def follow(self, api, resource, namespace, query, version, end):
        oldest = api.oldest
        while time.monotonic() < end and not api.stopped and api.oldest == oldest:
            with api.lock:
                fresh = [entry for entry in api.log if entry[0] > version and entry[1] == resource
                         and self.selected(entry[3], namespace, query)]
                if not fresh:
                    api.lock.wait(min(0.5, max(end - time.monotonic(), 0)))
                    continue
            self.chunk("".join(event(kind, item) + "\n" for _, _, kind, item in fresh))
            version = fresh[-1][0]
        if api.stopped:
            self.abort()
        else:
            self.chunk("")
