# SPDX-License-Identifier: GPL-2.0
"""Two that write at the same time."""
import fcntl
import os
import select
import time

import pytest

from cli_world import PIN_DIR

VIP = "192.0.2.10:80/tcp"


@pytest.fixture(name="locked")
def fixture_locked(world):
    """A world with a service, whose lock somebody holds until the test calls world.unlock()."""
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    lock = os.open(world.root / PIN_DIR.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    world.unlock = lambda: fcntl.flock(lock, fcntl.LOCK_UN)
    yield world
    os.close(lock)


@pytest.mark.parametrize("words", [
    ["services", "set", VIP, "-s", "rr"], ["services", "add", "192.0.2.11:80/tcp"],
    ["services", "del", VIP], ["backends", "add", VIP, "198.51.100.5"], ["attach", "veth1"],
    ["attach", "veth0"], ["detach", "veth0"], ["detach", "--all"],
    ["backends", "sync", "--from", "FILE"],
], ids=" ".join)
def test_writer_waits_and_says_so(locked, words, tmp_path):
    file = tmp_path / "none.json"
    file.write_text('{"kind": "Service", "metadata": {"name": "kubernetes"}, "spec": {"type": "ClusterIP"}}', encoding="ascii")
    before = locked.state()
    process = locked.start(*(str(file) if word == "FILE" else word for word in words))
    try:
        # The line comes while it waits, not at the end.
        assert select.select([process.stderr], [], [], 30)[0]
        assert process.stderr.readline() == \
            f"lbctl: waiting for the lock of {PIN_DIR}, which another lbctl holds\n"
        time.sleep(0.1)
        assert process.poll() is None and locked.state() == before
        locked.unlock()
        assert process.wait(30) == 0
        assert all("dispatcher" in line for line in process.stderr.read().splitlines())
    finally:
        # Or else what still waits would hold the other end of stderr.
        locked.unlock()
        process.communicate()


def test_reader_does_not_wait(locked):
    assert len(locked.json("services", "list")) == 1
    assert locked.json("backends", "list") == []
    assert locked.json("status")["attached"]


def test_nothing_to_wait_for_if_it_cannot_be_done(locked):
    assert locked.fails("attach", "veth1", "eth9") == "eth9: no such device"


def test_many_writers_lose_nothing(world):
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", VIP)
    processes = [world.start("backends", "add", VIP, f"198.51.100.{last}") for last in range(1, 21)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert len(world.json("backends", "list")) == 20
