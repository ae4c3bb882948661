# SPDX-License-Identifier: GPL-2.0
"""Building blocks of test worlds: namespaces as hosts, veth links between them, commands in them, and lbctl. All of it lives
in the sandbox (scripts/sandbox) of the test process, and ends with it.

Starting a process takes a twentieth of a second in a virtual machine, and Python half a second: devices, addresses and routes are set
up by one `ip -batch` for many, and what is Python is forked."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LBCTL = os.environ.get("LBCTL", str(TOP / "build/lbctl"))
PASS_OBJECT = TOP / "build/tests/lib/pass.bpf.o"
PIN_DIR = "/sys/fs/bpf/xlb"


CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(AssertionError):
    """A command that was to work did not."""


def run(*command, **options):
    flush()
    return run_now(*command, **options)


def run_now(*command, check=True, timeout=60, text_in=None, env=None):
    """Without what waits in Host.ip()."""
    result = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                            timeout=timeout, input=text_in, check=False,
                            stdin=subprocess.DEVNULL if text_in is None else None,
                            env=None if env is None else os.environ | env)
    if check and result.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit {result.returncode}\n"
                     f"{result.stdout}{result.stderr}")
    return result


def sh(line, **options):
    return run("bash", "-ec", line, **options)


def lbctl(*arguments, **options):
    return run(LBCTL, *arguments, **options)


def lbctl_json(*arguments):
    return json.loads(lbctl(*arguments, "-o", "json").stdout)


def wait_for(condition, seconds=10, what="condition", step=0.02):
    """Polls until condition() is true, and returns what it gave."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(step)


@contextlib.contextmanager
def lock_held(folder=PIN_DIR):
    """As by another lbctl."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def sysctl(**values):
    flush()
    for key, value in values.items():
        path = pathlib.Path("/proc/sys") / key.replace("__", "/")
        path.write_text(str(value), encoding="ascii")


def forwarding(on):
    sysctl(net__ipv4__ip_forward=int(on), net__ipv6__conf__all__forwarding=int(on))


WAITING = {}    # of Host.ip(): lines by host


def flush():
    """Runs what waits."""
    while WAITING:
        host = next(iter(WAITING))
        run_now(*host.enter(), "ip", "-batch", "-", text_in="\n".join(WAITING.pop(host)) + "\n")


class Child:
    """A forked process, as much of subprocess.Popen as tests need."""

    def __init__(self, pid, stdout):
        self.pid, self.stdout = pid, stdout

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def output(self):
        """All that it prints until it ends."""
        with self.stdout:
            text = self.stdout.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status:
            raise Failed(f"a forked process ended with {status}\n{text}")
        return text


class Host:
    """A network namespace with a name; the node is the sandbox's own (name None). there: it is made already."""

    def __init__(self, name, there=False):
        self.name = name
        if name and not there:
            run_now("ip", "netns", "add", name)
            # Until its link-local address is known to be nobody else's a device is silent for a second or two.
            run_now(*self.enter(), "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
            self.ip("link", "set", "lo", "up")

    def enter(self):
        """The words before a command that is to run in it; `ip netns exec` would hide bpffs."""
        return ["nsenter", f"--net=/run/netns/{self.name}"] if self.name else []

    def run(self, *command, **options):
        return run(*self.enter(), *command, **options)

    def sh(self, line, **options):
        return self.run("bash", "-ec", line, **options)

    def ip(self, *words):
        """An `ip` command that is run at the latest before the next command, or whatever else looks at this world, is."""
        WAITING.setdefault(self, []).append(" ".join(map(str, words)))

    def fork(self, function, *arguments, timeout=None):
        """A Python function as a process in it, whose stdout can be read."""
        flush()
        out, into = os.pipe()
        pid = os.fork()
        if pid:
            os.close(into)
            return Child(pid, os.fdopen(out, encoding="utf-8"))
        status = 1
        try:
            signal.alarm(timeout or 0)
            os.dup2(into, 1)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            if self.name:
                with open(f"/run/netns/{self.name}", "rb") as namespace:
                    if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
            function(*arguments)
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def start(self, *command, **options):
        """A process in it; ends with the sandbox at the latest."""
        flush()
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([*self.enter(), *map(str, command)], text=True, **options)

    def address(self, device, *addresses):
        for address in addresses:
            self.ip("addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def route(self, destination, *how):
        self.ip("route", "add", destination, *how)

    def remove(self):
        WAITING.pop(self, None)
        run("ip", "netns", "del", self.name)


NODE = Host(None)


def link(left, left_device, right, right_device, xdp_peer=False):
    """A veth between two hosts, up. xdp_peer: the right end may receive what XDP sends out of the left one, and hands whole
    checksums to it."""
    run_now("ip", "link", "add", left_device, *(["netns", left.name] if left.name else []), "type", "veth",
            "peer", "name", right_device, *(["netns", right.name] if right.name else []))
    left.ip("link", "set", left_device, "up")
    right.ip("link", "set", right_device, "up")
    if xdp_peer:
        run_now(*right.enter(), "ethtool", "-K", right_device, "tx", "off", "gro", "on")
        right.ip("link", "set", right_device, "xdpdrv", "obj", PASS_OBJECT, "sec", "xdp")


def reset():
    """Takes down what a world made on the node, for the next one in the same sandbox, and ends who lives in its hosts: a namespace
    is there as long as they are."""
    WAITING.clear()
    lbctl("detach", "--all", check=False)
    names = [host["name"] for host in json.loads(run("ip", "-j", "netns", "list").stdout or "[]")]
    for name in names:
        for pid in run("ip", "netns", "pids", name).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    devices = [device["ifname"] for device in json.loads(run("ip", "-j", "link").stdout) if device["ifname"] != "lo"]
    lines = [f"netns del {name}" for name in names] + [f"link del {device}" for device in devices]
    run("ip", "-force", "-batch", "-", text_in="\n".join([*lines, "route flush table main"]) + "\n", check=False)
    run("ip", "-6", "route", "flush", "table", "main", check=False)
