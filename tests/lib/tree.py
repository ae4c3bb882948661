# SPDX-License-Identifier: GPL-2.0
"""The source tree as it was built."""

from world import TOP


def built_with():
    """The environment in which make finds that nothing is to be done: the switches that change flags."""
    flags = (TOP / "build/flags").read_text(encoding="utf-8")
    return {name: "1" for name, flag in (("WERROR", "-Werror"), ("SANITIZE", "-fsanitize")) if flag in flags}
