# SPDX-License-Identifier: GPL-2.0
"""VLAN sub-interfaces of the device that xlb is attached to: the client on one of them, the backend on the device's own link, on the
same VLAN, or on another one."""

import pytest
import world
from test_drivers import machines  # noqa: F401

TO_CLIENT = "192.0.2.0/24"


def sub_interface(host, device, *tags):
    """device.5, device.5.7, ... and the name of the last."""
    for tag in tags:
        name = f"{device}.{tag}"
        if host.run("ip", "link", "show", name, check=False).returncode:
            host.run("ip", "link", "add", name, "link", device, "mtu", "1400", "type", "vlan", "id", tag)
        host.run("ip", "link", "set", name, "up")
        device = name
    return device


def settle(machines, client_tags, backend_tags):  # noqa: F811
    """Client and backend on their VLANs (none: the link itself); the backend's address."""
    world.run("ip", "link", "set", "nic0", "up")
    for host in (machines.client, machines.near):
        host.sh("ip address flush dev eth0; ip -6 route flush dev eth0 || true")
    here, there = sub_interface(world.NODE, "nic0", *client_tags), sub_interface(machines.client, "eth0", *client_tags)
    world.NODE.address(here, "192.0.2.1/24")
    machines.client.address(there, "192.0.2.100/24")
    machines.client.route("203.0.113.0/24", "via", "192.0.2.1")
    there = sub_interface(machines.near, "eth0", *backend_tags)
    if backend_tags == client_tags:
        machines.near.address(there, "192.0.2.9/24")
        return "192.0.2.9"
    here = sub_interface(world.NODE, "nic0", *backend_tags)
    world.NODE.address(here, "10.0.5.1/24")
    machines.near.address(there, "10.0.5.9/24")
    machines.near.route(TO_CLIENT, "via", "10.0.5.1")
    return "10.0.5.9"


ROWS = {
    "to the link itself": ((5,), ()), "from the link itself": ((), (6,)), "the same": ((5,), (5,)), "another": ((5,), (6,)),
    "two tags to the link itself": ((5, 7), ()), "two tags to one": ((5, 7), (6,)), "one to two tags": ((5,), (6, 7)),
}


@pytest.mark.parametrize("mode", ("native", "generic"))
@pytest.mark.parametrize("row", ROWS)
def test_vlans_of_one_device(machines, row, mode):  # noqa: F811
    """The kernel's routes name the sub-interface, or the device: what comes by the one's tag does not leave with it by the other."""
    backend = settle(machines, *ROWS[row])
    world.lbctl("attach", "nic0", "--mode", mode)
    machines.serve(backend)
    machines.works("near")


def test_a_sub_interface_that_comes_later(machines):  # noqa: F811
    """attach, run again, sees it."""
    world.run("ip", "link", "set", "nic0", "up")
    world.lbctl("attach", "nic0", "--mode", "native")
    backend = settle(machines, (5,), ())
    world.lbctl("attach", "nic0", "--mode", "native")
    machines.serve(backend)
    machines.works("near")
