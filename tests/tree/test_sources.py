# SPDX-License-Identifier: GPL-2.0
"""What is wrong with tests, and no run of them would say."""

import ast
import collections
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent.parent
FILES = [str(path.relative_to(TESTS)) for path in sorted(TESTS.rglob("*.py"))]


def shadowed(source):
    """Functions and classes that another one of the same name takes the place of: they never run."""
    bodies = [("", ast.parse(source).body)]
    found = []
    for prefix, body in bodies:
        defined = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        bodies += [(node.name + ".", node.body) for node in defined if isinstance(node, ast.ClassDef)]
        found += [prefix + name for name, count in collections.Counter(node.name for node in defined).items() if count > 1]
    return found


def test_shadowed_is_found():
    assert shadowed("def a(): pass\ndef b(): pass\nclass C:\n def d(self): pass\n def d(self): pass\ndef a(): pass\n") == ["a", "C.d"]


@pytest.mark.parametrize("file", FILES)
def test_no_name_is_defined_twice(file):
    assert not shadowed((TESTS / file).read_text(encoding="utf-8"))
