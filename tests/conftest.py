# SPDX-License-Identifier: GPL-2.0
"""For all groups: the library's path, and no test outside a sandbox (scripts/run-tests makes one)."""

import hashlib
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))


def pytest_addoption(parser):
    parser.addoption("--shell", action="store_true",
                     help="open a shell inside the world of a test that failed")
    parser.addoption("--share", metavar="K/N", type=share, default=(0, 1),
                     help="of the rows of every test with parameters, the K-th of N shares (from 0), and at least one")


def share(text):
    number, _, count = text.partition("/")
    if not 0 <= int(number) < int(count):
        raise ValueError(text)
    return int(number), int(count)


def pytest_collection_modifyitems(config, items):
    """--share: which rows are in a share does not depend on where they stand, so that every value of a parameter gets around."""
    number, count = config.getoption("--share")
    rows = {}
    for item in items:
        rows.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for of_one_test in rows.values():
        of_one_test.sort(key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
        kept.update(of_one_test[number::count] or [of_one_test[number % len(of_one_test)]])
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


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
