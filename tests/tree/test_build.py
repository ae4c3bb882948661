# SPDX-License-Identifier: GPL-2.0
"""The Makefile: what depends on what, and what its targets leave. What would write into the tree works on a copy of it."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from tree import built_with
from world import TOP, run

HEADERS = sorted(str(path.relative_to(TOP)) for folder in ("bpf", "include", "user") for path in (TOP / folder).rglob("*.h"))
SAMPLE = sorted({"include/xlb/abi.h", "bpf/flow.h", "user/model/ring.h", *HEADERS[::9]})
SOURCES = sorted(str(path.relative_to(TOP)) for pattern in ("user/*.c", "user/*/*.c", "bpf/*.bpf.c") for path in TOP.glob(pattern))


def make(*words, folder=TOP):
    return run("make", "-C", folder, "--no-print-directory", *words, check=False, env=built_with())


def includes(file):
    """The files of the tree that a file includes, directly and not."""
    found, left = set(), [file]
    while left:
        here = pathlib.Path(left.pop())
        for name in re.findall(r'^#include [<"]([^>"]+)[>"]', (TOP / here).read_text(encoding="utf-8"), re.MULTILINE):
            for folder in (here.parent, pathlib.Path("include"), pathlib.Path("user")):
                there = os.path.normpath(folder / name)
                if (TOP / there).is_file() and there not in found:
                    found.add(there)
                    left.append(there)
    return found


def compiled(result):
    """The objects that make would compile, without their ends."""
    assert result.returncode == 0, result.stderr
    return set(re.findall(r" -c -o build/(\S+)\.o ", result.stdout))


@pytest.fixture(scope="module", name="closure")
def make_closure():
    return {source: includes(source) for source in SOURCES}


def test_nothing_is_left_to_do_after_a_build():
    result = make("-q", "all", "tests")
    assert result.returncode == 0, "not built? " + make("-n", "all", "tests").stdout


def test_other_flags_rebuild_all():
    result = make("-n", "all", "CFLAGS=-O1")
    assert compiled(result) == {source.removesuffix(".c") for source in SOURCES} | {"bpf/libxdp/xdp-dispatcher.bpf"}


@pytest.mark.parametrize("header", SAMPLE)
def test_objects_follow_their_headers(closure, header):
    """A header that changes rebuilds what includes it. Objects that wait for the BPF object's skeleton come on top."""
    result = make("-n", "-W", header, "all")
    wanted = {source.removesuffix(".c") for source in SOURCES if header in closure[source]}
    assert wanted, "nobody includes it"
    assert wanted <= compiled(result)
    if not any(name.startswith("bpf/") for name in wanted):
        assert wanted == compiled(result)


INSTALLED = {
    "sbin/lbctl": ("build/lbctl", 0o755),
    "share/man/man8/lbctl.8": ("Documentation/lbctl.8", 0o644),
    "share/bash-completion/completions/lbctl": ("scripts/completion/lbctl.bash", 0o644),
    "share/zsh/vendor-completions/_lbctl": ("scripts/completion/lbctl.zsh", 0o644),
    "share/fish/vendor_completions.d/lbctl.fish": ("scripts/completion/lbctl.fish", 0o644),
}


@pytest.mark.parametrize("words,prefix", [([], "usr/local"), (["PREFIX=/opt/xlb"], "opt/xlb")])
def test_install(tmp_path, words, prefix):
    """All of it under DESTDIR and PREFIX, and nothing else; `make uninstall` takes it away."""
    result = make("install", f"DESTDIR={tmp_path}", *words)
    assert result.returncode == 0, result.stderr
    there = {str(path.relative_to(tmp_path / prefix)): path for path in tmp_path.rglob("*") if not path.is_dir()}
    assert set(there) == set(INSTALLED)
    for name, (source, mode) in INSTALLED.items():
        assert there[name].stat().st_mode & 0o7777 == mode
        assert there[name].read_bytes() == (TOP / source).read_bytes()
    version = (TOP / "VERSION").read_text(encoding="ascii").strip()
    assert version in run(there["sbin/lbctl"], "--version").stdout.split()
    assert make("uninstall", f"DESTDIR={tmp_path}", *words).returncode == 0
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


@pytest.fixture(name="copy")
def make_copy(tmp_path):
    """The sources, without what was built."""
    for name in ("bpf", "include", "scripts", "user", "Makefile", "VERSION"):
        (shutil.copytree if (TOP / name).is_dir() else shutil.copy2)(TOP / name, tmp_path / name)
    return tmp_path


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_compile_commands(copy):
    """An entry for each source, with a command that compiles it; `make clean` removes it, and what was built, and nothing else."""
    before = files(copy)
    assert make("compile_commands.json", folder=copy).returncode == 0
    entries = json.loads((copy / "compile_commands.json").read_text(encoding="utf-8"))
    assert sorted(entry["file"] for entry in entries) == SOURCES
    assert {entry["directory"] for entry in entries} == {str(copy)}
    commands = {entry["file"]: entry["command"] for entry in entries}
    for source in ("user/model/ring.c", "bpf/counters.bpf.c"):
        target = copy / "build" / source.replace(".c", ".o")
        target.parent.mkdir(parents=True)
        subprocess.run(commands[source], shell=True, cwd=copy, check=True, timeout=60)
        assert target.stat().st_size
    assert make("clean", folder=copy).returncode == 0
    assert files(copy) == before and not (copy / "build").exists()
