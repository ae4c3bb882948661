# SPDX-License-Identifier: GPL-2.0
"""
What the tests of the command line share: a world of their own to run lbctl in, and what is expected
of every command that fails.

A world is a set of namespaces (network, mounts, processes) with a bpffs and a sysfs of its own.
Whatever is attached, pinned or mounted there vanishes with it, even if the test is killed.
"""
import contextlib
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LBCTL = os.environ.get("LBCTL", str(ROOT / "build/lbctl"))
PIN_DIR = "/sys/fs/bpf/xlb"

SET_UP = """
set -e
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add veth0 type veth peer name peer0
ip link add veth1 type veth peer name peer1
ip address add 198.51.100.1/24 dev veth0
ip address add 2001:db8:1::1/64 dev veth0 nodad
ip address add 203.0.113.1/24 dev veth1
ip link add bridge0 type bridge
for dev in bridge0 veth0 peer0 veth1 peer1; do ip link set $dev up; done
echo ready
exec sleep infinity
"""


class Result:
    """How a command ended: status, out and err."""

    def __init__(self, arguments, status, out, err):
        self.arguments, self.status, self.out, self.err = arguments, status, out, err

    def __repr__(self):
        return f"$ lbctl {' '.join(self.arguments)}\n[{self.status}]\n{self.out}{self.err}"

    @property
    def line(self):
        """The one line on stderr."""
        assert self.err.count("\n") == 1 and self.err.startswith("lbctl: "), self
        return self.err[len("lbctl: "):-1]


def run_lbctl(*arguments, prefix=(), env=None, **more):
    done = subprocess.run([*prefix, LBCTL, *arguments], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=env and {**os.environ, **env}, **more)
    return Result(arguments, done.returncode, done.stdout, done.stderr)


class World:
    """lbctl in namespaces of its own, with veth0, veth1 (to peer0, peer1) and bridge0."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "--propagation", "private", "sh", "-c", SET_UP],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            self.process.kill()
            raise RuntimeError(self.process.stderr.read())
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        self.pid = int(children.split()[0])
        self.enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid",
                      "--root", "--wd"]
        self.root = pathlib.Path(f"/proc/{self.pid}/root")

    def close(self):
        self.process.kill()
        self.process.communicate()

    def run(self, *command, check=True):
        """Any command in the world: what it printed."""
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, timeout=60,
                              check=False)
        assert done.returncode == 0 or not check, (command, done.stderr)
        return done.stdout

    def start(self, *arguments):
        """lbctl as a process that goes on by itself."""
        return subprocess.Popen([*self.enter, LBCTL, *arguments], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def lbctl(self, *arguments, prefix=(), env=None):
        return run_lbctl(*arguments, prefix=[*self.enter, *prefix], env=env)

    def ok(self, *arguments):
        """What lbctl prints when it does what it is told, without a complaint."""
        result = self.lbctl(*arguments)
        assert result.status == 0, result
        return result.out

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "-o", "json"))

    def pins(self):
        """Names below the default pin directory, or None where it is not there."""
        path = self.root / PIN_DIR.lstrip("/")
        return sorted(entry.name for entry in path.iterdir()) if path.exists() else None

    def state(self):
        """All that a command which fails must leave as it was."""
        if self.pins() is None:
            return None
        return (self.pins(), self.json("services", "list"), self.json("backends", "list"),
                self.json("status")["devices"])

    @contextlib.contextmanager
    def unchanged(self):
        before = self.state()
        yield
        assert self.state() == before

    def fails(self, *arguments, **more):
        """The line with which a command fails that is well-formed but cannot be done."""
        with self.unchanged():
            result = self.lbctl(*arguments, **more)
        assert (result.status, result.out) == (1, ""), result
        return result.line

    def refuses(self, *arguments):
        """The line about a command line that is wrong; checks the hint to the right --help."""
        with self.unchanged():
            return usage_error(self.lbctl(*arguments))

    def backend(self, service, address):
        return self.json("backends", "show", service, address)


def usage_error(result):
    assert (result.status, result.out) == (2, ""), result
    line, _, hint = result.line.partition("; try '")
    assert hint.startswith("lbctl") and hint.endswith(" --help'"), result
    return line


def own_by(world, service, owner):
    """Makes a service belong to somebody else, as a sync would have: 1 is file, 2 is kubernetes."""
    vip = next(s for s in world.json("services", "list") if s["service"] == service)
    pinned = f"{PIN_DIR}/service_info"
    for element in json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", pinned)):
        value = bytes(int(byte, 16) for byte in element["value"])
        key = [str(int(byte, 16)) for byte in element["key"]]
        if value[4:value.index(0, 4)].decode() != vip["name"]:
            continue
        changed = owner.to_bytes(4, "little") + value[4:]
        world.run("bpftool", "map", "update", "pinned", pinned, "key", *key, "value",
                  *map(str, changed))
        return
    raise LookupError(service)
