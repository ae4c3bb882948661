# SPDX-License-Identifier: GPL-2.0
"""What a running watch may still do: capabilities, no_new_privs, the filter of system calls; and that its work goes on with that."""

import json
import os
import pathlib
import signal

import pytest

from test_credentials import EXEC, credential, plugin, runs
from test_watch import follows
from world import LBCTL, PIN_DIR, TOP, lbctl, lbctl_json, lock_held, run, wait_for

OTHER = TOP / "build/tests/other/lbctl"
NET_ADMIN, PERFMON, BPF = 12, 38, 39
KEPT = 1 << BPF | 1 << NET_ADMIN | 1 << PERFMON


def rights(pid):
    """{"CapEff": 12, ..., "Seccomp": 2} of a process, with numbers as the kernel prints them."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = dict(line.split(":\t", 1) for line in text.splitlines())
    return {name: int(lines[name], 16 if name.startswith("Cap") else 10)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}


CONFINED = {"CapInh": 0, "CapPrm": KEPT, "CapEff": KEPT, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}


def watching(cluster):
    wait_for(lambda: len(cluster.server.watchers()) == 2, 10, "two watches")


@pytest.mark.every_run
@pytest.mark.parametrize("thread", ["first", "all"])
def test_rights_of_a_running_watch(hello, thread):
    running = hello.watch()
    watching(hello)
    pid = running.process.pid
    if thread == "first":
        assert rights(pid) == CONFINED
    else:
        for task in os.listdir(f"/proc/{pid}/task"):
            assert rights(f"{pid}/task/{task}") == CONFINED


def test_nothing_is_refused_that_it_needs(hello):
    """New services, a server that goes away, a relist, routes that change, and a lock that is held: all of it without a word
    about a refused system call."""
    running = hello.watch()
    watching(hello)
    hello.service("web", "192.0.2.11")
    hello.slice("10.0.0.9", service="web", name="web-1")
    running.says("default/web:80")
    hello.server.stop()
    running.says("forwarding goes on")
    hello.server.forget()
    hello.slice("10.0.0.3")
    hello.server.start()
    follows(hello, "10.0.0.3")
    run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    run("ip", "link", "set", "late0", "up")
    run("ip", "addr", "add", "10.77.0.1/24", "dev", "late0", "nodad", check=False)
    run("ip", "route", "add", "10.0.0.3/32", "via", "10.77.0.2", "dev", "late0", "onlink", check=False)
    run("ip", "link", "del", "late0")
    with lock_held():
        hello.slice("10.0.0.4")
        running.says("waiting for the lock")
    follows(hello, "10.0.0.4")
    assert running.end() == 0
    assert not [line for line in running.err if "refused" in line], running.err


@pytest.mark.every_run
def test_device_of_ours_stays_known(hello):
    """Without CAP_SYS_ADMIN programs cannot be looked up by id: what is attached is recognized all the same."""
    before = lbctl("status", "-o", "json").stdout
    running = hello.watch("--vips", "loadbalancer,nodeport")
    watching(hello)
    run("ip", "addr", "add", "198.51.100.9/24", "dev", "uplink")
    try:
        hello.slice("10.0.0.5")
        follows(hello, "10.0.0.5")
        wait_for(lambda: running.process.poll() is None, 1)
    finally:
        run("ip", "addr", "del", "198.51.100.9/24", "dev", "uplink")
    hello.slice("10.0.0.6")
    follows(hello, "10.0.0.6")
    after = lbctl("status", "-o", "json").stdout
    devices = [text.split('"devices"')[1].split('"maps"')[0] for text in (before, after)]
    assert devices[0] == devices[1]
    filters = run("tc", "filter", "show", "dev", "uplink", "ingress").stdout
    assert filters.count("direct-action") == 1, filters


def entry(device):
    """What the packet path is told of it."""
    number = json.loads(run("ip", "-j", "link", "show", device).stdout)[0]["ifindex"]
    elements = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/devices").stdout)
    return next(element["formatted"]["value"] for element in elements if element["formatted"]["key"] == number)


def looks_again(device):
    """Links change, until the watch has looked at all devices at least once."""
    mtu = entry(device)["mtu"]
    for smaller in (mtu - 100, mtu - 200):  # the second one is seen when the first look is over
        run("ip", "link", "set", device, "mtu", smaller)
        wait_for(lambda: entry(device)["mtu"] == smaller, 10, f"{device} with an MTU of {smaller}")


def seen(device):
    """What must not change of a device because a watch looks at it."""
    known = entry(device)
    config = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PIN_DIR}/config").stdout)[0]["formatted"]["value"]
    filters = {hook: run("tc", "filter", "show", "dev", device, hook).stdout for hook in ("ingress", "egress")}
    status = next(each for each in lbctl_json("status")["devices"] if each["device"] == device)
    return known["flags"], known["mode"], config["uplink"], filters, status


@pytest.fixture(name="jumbo")
def fixture_jumbo(node):
    """A device whose frames take more than a page, and so another program than the pinned one."""
    run("ip", "link", "add", "jumbo0", "type", "veth", "peer", "name", "jumbo1")
    for device in ("jumbo0", "jumbo1"):
        run("ip", "link", "set", device, "mtu", "9000", "up")
    lbctl("attach", "jumbo0")
    yield "jumbo0"
    lbctl("detach", "jumbo0")
    run("ip", "link", "del", "jumbo0")


def test_large_frames_stay_known(hello, jumbo):
    before = seen(jumbo)
    hello.watch()
    watching(hello)
    run("ip", "addr", "add", "10.88.0.1/24", "dev", jumbo)
    looks_again(jumbo)
    assert seen(jumbo) == before


def test_half_an_upgrade_stays_known(hello):
    """Pins are of this build, and what runs is of another one: whoever cannot tell leaves it as it is."""
    pins = ("xdp", "tc_ingress", "tc_egress")
    for pin in pins:
        run("bpftool", "prog", "pin", "pinned", f"{PIN_DIR}/{pin}", f"{PIN_DIR}-{pin}")
    run(OTHER, "attach", "uplink")
    for pin in pins:
        os.rename(f"{PIN_DIR}-{pin}", f"{PIN_DIR}/{pin}")
    try:
        before = seen("uplink")
        running = hello.watch()
        watching(hello)
        looks_again("uplink")
        hello.slice("10.0.0.5")
        follows(hello, "10.0.0.5")
        assert seen("uplink") == before
        assert running.end() == 0 and not running.err
    finally:
        run("ip", "link", "set", "uplink", "mtu", "1500")
        assert "another build" in lbctl("attach", "uplink").stderr
    assert seen("uplink")[3]["ingress"].count("direct-action") == 1


def test_exec_plugin_runs_with_nothing(hello):
    """It is renewed in the middle of a watch, is confined like the watch, and has no capability at all, though it is root."""
    text = f"grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status >{hello.folder}/status\n" + credential(hello, token="secret")
    running = hello.watch(config=plugin(hello, text))
    watching(hello)
    assert runs(hello) == 1
    lines = (hello.folder / "status").read_text(encoding="ascii").splitlines()
    values = {line.split(":")[0]: int(line.split()[1], 16) for line in lines}
    assert values == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}
    hello.server.token = "rotated"
    credential(hello, token="rotated")
    hello.server.stop()
    hello.server.start()
    wait_for(lambda: runs(hello) > 1, 15, "the plugin again")
    watching(hello)
    hello.slice("10.0.0.8")
    follows(hello, "10.0.0.8")
    assert not [line for line in running.err if "refused" in line], running.err


def ignored(text):
    """Whether SIGPIPE is, as a process's status has it."""
    return bool(int(text.split("SigIgn:\t")[1].split()[0], 16) & 1 << signal.SIGPIPE - 1)


def test_sigpipe(hello):
    """Who asks about health and hangs up does not end a watch; plugins end by it like other programs."""
    running = hello.watch(config=plugin(hello, f"cat /proc/self/status >{hello.folder}/status\n" + credential(hello, token="secret")))
    watching(hello)
    assert ignored(pathlib.Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii"))
    assert not ignored((hello.folder / "status").read_text(encoding="ascii"))


def test_exec_plugin_that_does_what_is_refused(hello):
    """Seen, not hung: the plugin ends, the line says why, and it is tried again."""
    running = hello.watch(config=plugin(hello, "exec unshare --mount true"))
    running.says("ended by a system call that the filter of a watch refuses")
    assert running.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_still(hello, number):
    running = hello.watch()
    watching(hello)
    assert running.end(number) == 0 and not running.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_while_another_holds_the_lock(hello, number):
    running = hello.watch()
    watching(hello)
    with lock_held():
        hello.slice("10.0.0.4")
        running.says("waiting for the lock")
        assert running.end(number) == 0 and len(running.err) == 1, running.err


def test_as_another_user(hello):
    """uid != 0, with the three capabilities and nothing else; the pins are that user's."""
    user, folder = 12345, hello.folder
    for path in [PIN_DIR, *map(str, pathlib.Path(PIN_DIR).iterdir())]:
        os.chown(path, user, user)
    os.chmod("/sys/fs/bpf", 0o755)
    for path in [folder, *folder.parents]:
        if str(path).startswith("/tmp/"):
            os.chmod(path, 0o755)
    for path in [*folder.iterdir(), pathlib.Path(hello.certificates.path("ca.crt"))]:
        os.chmod(path, 0o644)
    os.chmod(pathlib.Path(hello.certificates.path("ca.crt")).parent, 0o755)
    try:
        caps = "+bpf,+net_admin,+perfmon"
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--inh-caps={caps}",
                  f"--ambient-caps={caps}", f"--bounding-set=-all,{caps}"]
        running = type(hello.watch())([*prefix, LBCTL, "backends", "sync", "--watch", "--kubeconfig", str(hello.config)])
        hello.watches[-1].end()
        hello.watches.append(running)
        try:
            watching(hello)
        except AssertionError as failure:
            raise AssertionError(running.err) from failure
        status = rights(running.process.pid)
        assert (status["CapEff"], status["CapAmb"], status["NoNewPrivs"], status["Seccomp"]) == (KEPT, 0, 1, 2)
        hello.slice("10.0.0.2", "10.0.0.7")
        follows(hello, "10.0.0.2", "10.0.0.7")
        assert not [line for line in running.err if "refused" in line], running.err
    finally:
        for path in [PIN_DIR, *map(str, pathlib.Path(PIN_DIR).iterdir())]:
            os.chown(path, 0, 0)
