# SPDX-License-Identifier: GPL-2.0
"""Proving who we are, and what is said where that does not work."""

import pathlib
import time

import pytest

from apiserver import Answer, ApiServer
from world import lbctl, run

SERVICES = "/api/v1/services"
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


def config(cluster, user):
    return cluster.server.kubeconfig(cluster.folder / "own", cluster.certificates, user=user)


def plugin(cluster, text):
    path = cluster.folder / "plugin"
    path.write_text(f"#!/bin/sh\necho run >>{cluster.folder}/runs\n{text}\n")
    path.chmod(0o755)
    return config(cluster, {"exec": EXEC | {"command": "./plugin"}})


def credential(cluster, **status):
    """A shell command that prints an ExecCredential."""
    path = cluster.folder / "credential.json"
    pairs = ",".join(f'"{key}":"{value}"' for key, value in status.items())
    path.write_text('{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{%s}}' % pairs)
    return f"cat {path}"


def runs(cluster):
    return len((cluster.folder / "runs").read_text().splitlines())


def test_401_for_good(hello):
    hello.server.token = "another"
    hello.fails(complaint=f"401: the credentials of {hello.config} are not accepted (Unauthorized)")
    assert hello.server.count("/apis/discovery.k8s.io") == 2  # read again once, then given up


def test_token_file_is_read_again(hello):
    token = hello.folder / "token"
    token.write_text("old\n")

    def rotate():
        token.write_text("secret\n")

    hello.server.next("/apis/discovery.k8s.io", Answer(401, then=rotate))
    hello.slice("10.0.0.1")
    hello.sync(config=config(hello, {"tokenFile": "token"}))
    assert hello.addresses() == ["10.0.0.1"]


@pytest.mark.parametrize("user, complaint", [
    ({"tokenFile": "nothing"}, "nothing: No such file or directory"),
    ({"client-certificate": "none.crt", "client-key": "none.key"}, "none.crt: No such file or directory"),
    ({"token": "a\nb"}, "a control character in the credentials"),
])
def test_unusable(hello, user, complaint):
    hello.fails(config=config(hello, user), complaint=complaint)


def test_token_file_that_is_empty(hello):
    (hello.folder / "token").write_text("\n")
    hello.fails(config=config(hello, {"tokenFile": "token"}), complaint="it is empty")


def test_client_certificate(hello):
    server = ApiServer(hello.certificates, client_certificates=True)
    server.token, server.objects = None, hello.server.objects
    pki = hello.certificates
    try:
        good = server.kubeconfig(hello.folder / "good", pki, user={"client-certificate": pki.path("client.crt"),
                                                                   "client-key": pki.path("client.key")})
        assert hello.sync(config=good).stdout == ""
        assert server.count(SERVICES) == 1
        none = server.kubeconfig(hello.folder / "none", pki, user={})
        # TLS 1.3 refuses after the handshake: the alert, or only the end of the connection, is seen.
        hello.fails(config=none, complaint=server.url)
        swapped = server.kubeconfig(hello.folder / "swapped", pki, user={
            "client-certificate": pki.path("client.crt"), "client-key": pki.path("server.key")})
        hello.fails(config=swapped, complaint="key")
        garbage = server.kubeconfig(hello.folder / "garbage", pki, user={
            "client-certificate-data": "Z2FyYmFnZQ==", "client-key-data": "Z2FyYmFnZQ=="})
        hello.fails(config=garbage, complaint="certificate")
    finally:
        server.stop()


def test_exec_plugin(hello):
    hello.sync(config=plugin(hello, credential(hello, token="secret")))
    assert runs(hello) == 1  # one for all requests


def test_exec_plugin_after_401(hello):
    hello.server.next(SERVICES, Answer(401))
    hello.sync(config=plugin(hello, credential(hello, token="secret")))
    assert runs(hello) == 2


def test_exec_plugin_with_certificate(hello):
    server = ApiServer(hello.certificates, client_certificates=True)
    server.token, server.objects = None, hello.server.objects
    pem = {key: pathlib.Path(hello.certificates.path(name)).read_text().replace("\n", "\\n") for key, name in
           (("clientCertificateData", "client.crt"), ("clientKeyData", "client.key"))}
    try:
        path = plugin(hello, credential(hello, **pem))
        text = pathlib.Path(path).read_text().replace(hello.server.url, server.url)
        pathlib.Path(path).write_text(text)
        assert hello.sync(config=path).stdout == ""
    finally:
        server.stop()


@pytest.mark.parametrize("text, complaint", [
    ("echo no idea >&2; exit 3", "plugin: exit status 3: no idea"),
    ("exit 0", "plugin: printed nothing"),
    ("echo hello", "plugin: not JSON"),
    ("echo '{}'", "plugin: kind: ExecCredential is expected"),
    ("""echo '{"kind":"ExecCredential"}'""", "plugin: status is missing"),
    ("""echo '{"kind":"ExecCredential","status":{}}'""", "neither token nor clientCertificateData"),
    ("""echo '{"kind":"ExecCredential","status":{"token":7}}'""", "token: a string is expected"),
    ("""echo '{"kind":"ExecCredential","status":{"token":"a","expirationTimestamp":"2001-01-01T00:00:00Z"}}'""",
     "it has expired already (2001-01-01T00:00:00Z)"),
    ("kill -9 $$", "plugin: killed by signal 9"),
    ("head -c 3000000 /dev/zero", "plugin: printed more than 1 MB"),
])
def test_exec_plugin_that_fails(hello, text, complaint):
    hello.fails(config=plugin(hello, text), complaint=complaint)


def test_exec_plugin_that_hangs(hello):
    start = time.monotonic()
    hello.fails("--request-timeout", "1", config=plugin(hello, "sleep 54321 & wait"),
                complaint="plugin: no answer within 1 s: killed")
    assert time.monotonic() - start < 5
    assert not run("pgrep", "-f", "sleep 54321", check=False).stdout


def test_exec_plugin_that_is_not_there(hello):
    path = config(hello, {"exec": EXEC | {"command": "xlb-no-such-plugin", "installHint": "install it"}})
    hello.fails(config=path, complaint="exec plugin xlb-no-such-plugin is not there: install it")


def test_in_cluster(hello):
    folder = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
    run("mount", "-t", "tmpfs", "tmpfs", "/var/run/secrets") if pathlib.Path("/var/run/secrets").exists() else None
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_text(pathlib.Path(hello.certificates.path("ca.crt")).read_text())
        (folder / "token").write_text("secret")
        hello.slice("10.0.0.1")
        lbctl("backends", "sync", env={"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                                       "KUBERNETES_SERVICE_PORT": str(hello.server.port)})
        assert hello.addresses() == ["10.0.0.1"]
        (folder / "token").unlink()
        result = lbctl("backends", "sync", check=False, env={
            "KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(hello.server.port)})
        assert result.returncode == 1
        assert "token of in-cluster: " in result.stderr and "No such file" in result.stderr
    finally:
        run("rm", "-rf", "/var/run/secrets/kubernetes.io")


@pytest.mark.parametrize("options, complaint", [
    (["--kubeconfig", "/nowhere/config"], "kubeconfig: /nowhere/config: No such file or directory"),
    (["--kubeconfig", "/etc/passwd"], "kubeconfig: /etc/passwd: "),
    (["--context", "nope"], 'there is no context "nope"'),
])
def test_kubeconfig(hello, options, complaint):
    hello.fails(*options, complaint=complaint)
