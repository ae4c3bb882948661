# SPDX-License-Identifier: GPL-2.0
"""For all groups: the library's path, and no test outside a sandbox (scripts/run-tests makes one)."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))


def pytest_addoption(parser):
    parser.addoption("--shell", action="store_true",
                     help="open a shell inside the world of a test that failed")


@pytest.fixture(scope="session", autouse=True)
def sandbox():
    if os.geteuid():
        pytest.skip("needs root")
    if "XLB_IN_SANDBOX" not in os.environ:
        pytest.exit("run these by scripts/run-tests, or scripts/sandbox /usr/bin/python3 -m pytest tests/...", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call" and outcome.get_result().failed and item.config.getoption("--shell"):
        item.config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
        print(f"\n{item.name} failed; a shell in its world, exit to go on")
        os.system("bash </dev/tty >/dev/tty 2>&1")
