# SPDX-License-Identifier: GPL-2.0
"""scripts/demo --static, as a user runs it: to its end, and with Ctrl-C in the middle of it."""

import os
import pathlib
import re
import signal
import subprocess

import pytest
from tree import built_with, nobody_left
from world import TOP, wait_for

LIMIT_S = 120
TITLES = ["A node with a client behind eth0, and three backends on a bridge", "Attach, and a service by hand",
          "Two more backends: the loop rotates over the three", "Counters, with no process of ours running",
          "No backends: refused at once", "Detach leaves nothing behind"]


def there():
    """What a demo could leave behind: devices, namespaces, pins, mounts, files."""
    return [sorted(os.listdir("/sys/class/net")), sorted(os.listdir("/run/netns")), sorted(os.listdir("/sys/fs/bpf")),
            sorted(os.listdir("/run/xlb")), len(pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines())]


def as_at_a_terminal():
    """Whoever runs tests in the background may have Ctrl-C ignored, for all that come from there."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(name="demo")
def start_demo():
    """Started in a session of its own, with the flags that the tree was built with."""
    before = there()
    process = subprocess.Popen([TOP / "scripts/demo", "--static"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, preexec_fn=as_at_a_terminal, env=os.environ | built_with())
    yield process
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    assert there() == before


@pytest.mark.heavy
def test_demo(demo):
    """All that it shows; what it says of rotation and counters it checks itself."""
    text, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, text
    assert re.findall(r"^== (.*)$", text, re.MULTILINE) == TITLES
    hosts = re.findall(r"^client: (?:Hostname: )?(\S*)", text, re.MULTILINE)
    assert hosts[:3] == ["pod5"] * 3 and sorted(hosts[3:9]) == ["pod5", "pod5", "pod6", "pod6", "pod7", "pod7"]
    left = text.partition("$ ls /sys/fs/bpf\n")[2].split()
    assert "xlb" not in left, "pins are left"
    wait_for(lambda: nobody_left(demo.pid), 10, "the end of its processes")


@pytest.mark.heavy
def test_demo_interrupted(demo):
    """Ctrl-C goes to all processes of the terminal: none of them is left, nor what they made."""
    for line in demo.stdout:
        if line.startswith("client: Hostname"):
            break
    os.killpg(demo.pid, signal.SIGINT)
    rest, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 130, rest
    assert "Traceback" not in rest and "Detach" not in rest
    wait_for(lambda: nobody_left(demo.pid), 10, "the end of its processes")
