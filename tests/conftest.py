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
    parser.addoption("--share", metavar="K/RUNS/N", type=share, default=(0, 1, 1),
                     help="of each test one row in N, at least one, is dealt out to so many runs; this is the K-th (from 0)")


def pytest_configure(config):
    config.addinivalue_line("markers", "every_run: a row of it is in each share")
    config.addinivalue_line("markers", "heavy: tens of thousands of packets or objects; too much for emulated machines")


def share(text):
    number, runs, count = map(int, text.split("/"))
    if not 0 <= number < runs or count < 1:
        raise ValueError(text)
    return number, runs, count


def digest(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pytest_collection_modifyitems(config, items):
    """--share: which rows are in a share does not depend on where they stand, so that every value of a parameter gets around."""
    number, runs, count = config.getoption("--share")
    rows = {}
    for item in items:
        rows.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for name, of_one_test in rows.items():
        of_one_test.sort(key=lambda item: digest(item.nodeid))
        if of_one_test[0].get_closest_marker("every_run"):
            kept.add(of_one_test[number % len(of_one_test)])
            continue
        dealt = of_one_test[::count]
        # Who gets the first is another run for each test.
        kept.update(dealt[(number + digest(name)) % runs::runs])
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
