# SPDX-License-Identifier: GPL-2.0
import pathlib
import sys

import features
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import stand  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def the_stand(sandbox):
    if (missing := features.no_test_run_with_context()) and not stand.ON_THE_WIRE:
        pytest.skip(missing)
    stand.build()
    yield
    stand.lbctl("detach", "--all", check=False)


@pytest.fixture
def service():
    """Adds services, and takes them away at the end."""
    made = []

    def add(vip, backends=(), **options):
        arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        stand.lbctl("services", "add", vip, *arguments)
        made.append(vip)
        for backend in backends:
            stand.lbctl("backends", "add", vip, *backend.split())
        return vip

    yield add
    for vip in made:
        stand.lbctl("services", "del", vip, check=False)
