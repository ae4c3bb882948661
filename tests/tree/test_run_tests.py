# SPDX-License-Identifier: GPL-2.0
"""scripts/run-tests itself."""

import os
import signal
import subprocess

from tree import nobody_left
from world import TOP, run, wait_for


def test_killed():
    """No test goes on when nobody waits for it any more."""
    process = subprocess.Popen([TOP / "scripts/run-tests", "api/test_watch.py"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: "pytest" in run("ps", "-s", str(process.pid), "-o", "args=", check=False).stdout, 30, "the tests to begin")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: nobody_left(process.pid), 10, "the end of its processes")
