# SPDX-License-Identifier: GPL-2.0
"""The source tree as it was built, and its scripts as processes."""

from world import TOP, run


def built_with():
    """The environment in which make finds that nothing is to be done: the switches that change flags."""
    flags = (TOP / "build/flags").read_text(encoding="utf-8")
    return {name: "1" for name, flag in (("WERROR", "-Werror"), ("SANITIZE", "-fsanitize")) if flag in flags}


def nobody_left(session):
    """But zombies, whose parent is whoever began the sandbox of this test."""
    states = run("ps", "-s", str(session), "-o", "stat=", check=False).stdout.split()
    return all(state.startswith("Z") for state in states)
