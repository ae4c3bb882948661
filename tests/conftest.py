# SPDX-License-Identifier: GPL-2.0
"""For all groups: the library's path, and no test outside a sandbox (scripts/run-tests makes one)."""

import dataclasses
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))
import sharing  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--shell", action="store_true",
                     help="open a shell inside the world of a test that failed")
    parser.addoption("--share", metavar="K/RUNS/N[/TURNS]", type=sharing.Share.parse, default=sharing.Share(),
                     help="of each test one row in N, at least one, is dealt out to so many runs; this is the K-th (from 0); by the "
                          "date, or XLB_TURN, others take their turn, and each test does once in so many turns")
    parser.addoption("--lane", metavar="K/N", default="0/1",
                     help="one row in N, from the K-th (from 0); with the other lanes it is all of them")
    parser.addoption("--kernels", metavar="A,B,...", default="", help="which kernels the runs are on")


def pytest_configure(config):
    config.addinivalue_line("markers", "every_run: a row of it is in each share")
    config.addinivalue_line("markers", "every_row: all of its rows are in each share")
    config.addinivalue_line("markers", "whole: all of its rows are dealt out, none is left out")
    config.addinivalue_line("markers", "kernels(since, before): it is dealt to the runs on such kernels only")
    config.addinivalue_line("markers", "heavy: tens of thousands of packets or objects; too much for emulated machines")


def marks(item):
    """The nearest of each name: a test's own goes before its module's."""
    dealing, found = ("whole", "every_run", "every_row"), {}
    for mark in item.iter_markers():
        if mark.name == "kernels" or (mark.name in dealing and not found.keys() & set(dealing)):
            found.setdefault(mark.name, mark.kwargs)
    return found


def keep(config, items, kept):
    left = [item for item in items if item.nodeid not in kept]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.nodeid in kept]


def pytest_collection_modifyitems(config, items):
    """--share, and of what is left --lane"""
    share = dataclasses.replace(config.getoption("--share"), turn=sharing.today(),
                                kernels=tuple(filter(None, config.getoption("--kernels").split(","))))
    tests = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], {})[item.nodeid] = item
    kept = set()
    for name, rows in tests.items():
        kept.update(share.rows(name, list(rows), marks(next(iter(rows.values())))))
    keep(config, items, kept)
    number, lanes = map(int, config.getoption("--lane").split("/"))
    keep(config, items, {item.nodeid for item in items[number::lanes]})


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
