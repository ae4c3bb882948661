# SPDX-License-Identifier: GPL-2.0
"""Worlds for the tests of the command line: cli_world.py says what they are."""
import pytest

from cli_world import World


@pytest.fixture(name="world")
def fixture_world():
    """A new world, in which nothing is attached."""
    world = World()
    yield world
    world.close()


@pytest.fixture(name="attached", scope="module")
def fixture_attached():
    """A world that the tests of a module share: attached, and with services. Leave it as it was."""
    world = World()
    world.ok("attach", "veth0", "--max-flows", "1024")
    world.ok("services", "add", "192.0.2.10:80/tcp", "--scheduler", "rr")
    world.ok("services", "add", "192.0.2.10:53/udp", "--name", "dns")
    world.ok("services", "add", "[2001:db8::10]:80/tcp")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "198.51.100.5:8080", "--weight", "2")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "198.51.100.6")
    world.ok("backends", "add", "[2001:db8::10]:80/tcp", "[2001:db8:1::5]:8080")
    yield world
    world.close()
