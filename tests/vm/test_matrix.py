# SPDX-License-Identifier: GPL-2.0
"""What deals tests to kernels, and what becomes of virtual machines that there are not, that die, or that hang: without any. The scripts
are the real ones; in the place of QEMU, or of all that runs in a guest, is one that does what it is told."""

import os
import subprocess

import matrix
import pytest
import sharing
from sharing import Share

KERNELS = tuple(matrix.KERNELS)
ROWS = [f"test_it[{number}]" for number in range(70)]


def dealt(turn, rows, turns=1, **marks):
    """Of each run."""
    return [Share(number, len(KERNELS), 32, turns, turn, KERNELS).rows("test_it", rows, marks) for number in range(len(KERNELS))]


@pytest.mark.parametrize("turns", (1, 2))
@pytest.mark.parametrize("rows", (ROWS, ROWS[:32], ROWS[:12], ROWS[:4], ROWS[:1]), ids=len)
def test_all_rows_get_to_all_kernels(rows, turns):
    """Not on one day, but each in its turn; at least one on each day, or each second day, and none on two kernels."""
    kernels = {row: set() for row in rows}
    off = set()
    for turn in range(32 * 4 * turns):
        today = dealt(turn, rows, turns)
        if not any(today):
            off.add(turn % turns)
            continue
        assert len(rows) // 32 <= sum(map(len, today)) <= len(rows) // 32 + 1
        for number, its in enumerate(today):
            for row in its:
                kernels[row].add(number)
    assert set(map(len, kernels.values())) == {4} and len(off) == turns - 1
    assert dealt(5, rows) == dealt(5, list(reversed(rows)))


def test_marks():
    one_each = dealt(0, ROWS[:6], every_run={})
    assert list(map(len, one_each)) == [1, 1, 1, 1] and one_each != dealt(1, ROWS[:6], every_run={})
    assert all(set(its) == set(ROWS[:6]) for its in dealt(0, ROWS[:6], every_row={}))
    for turn in range(3):
        whole = dealt(turn, ROWS[:6], whole={})
        assert sorted(sum(whole, [])) == sorted(ROWS[:6]) and max(map(len, whole)) == 2
        none, *able = dealt(turn, ROWS[:6], whole={}, kernels={"since": (6, 1)})
        assert not none and sorted(sum(able, [])) == sorted(ROWS[:6]) and list(map(len, able)) == [2, 2, 2]
        old, *rest = dealt(turn, ROWS[:1], every_run={}, kernels={"before": (5, 11)})
        assert old == ROWS[:1] and not any(rest)


def test_without_a_share_there_are_all():
    assert Share().rows("test_it", ROWS, {"whole": {}, "kernels": {"since": (99, 0)}}) == ROWS


def test_the_day_is_what_is_said(monkeypatch):
    monkeypatch.setenv("XLB_TURN", "7")
    assert sharing.today() == 7
    monkeypatch.delenv("XLB_TURN")
    assert sharing.today() > 20000


# ---- the matrix, with something else in the guest's place ----

def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(name="guest")
def make_guest(monkeypatch, tmp_path):
    """guest(said, status, fetched) is the outcome of a kernel that says and ends so; in `command` is what was to run there."""
    monkeypatch.setattr(matrix, "LOGS", tmp_path)
    monkeypatch.delenv("FULL", raising=False)

    def outcome(said="", status=0, fetched="true", kernel="6.1"):
        monkeypatch.setattr(matrix, "GET_VM", script(tmp_path / "get-vm", fetched))
        (tmp_path / "said").write_text(said)
        monkeypatch.setattr(matrix, "RUN", script(tmp_path / "run", f'echo "$*" >{tmp_path}/command; cat {tmp_path}/said; exit {status}'))
        (found,) = matrix.run([kernel])
        return found

    outcome.command = tmp_path / "command"
    return outcome


def test_the_slowest_first():
    assert matrix.slowest_first(["5.10", "6.1", "6.12", "7.2"]) == ["7.2", "6.1", "6.12", "5.10"]
    assert matrix.slowest_first(["6.1", "7.3"]) == ["7.3", "6.1"]


SAID = """== net
7 passed, 3 skipped, 90 deselected in 8.05s
skipped: 2: tests.net.test_a and others: this kernel has no a
skipped: 1: tests.net.test_b: this kernel has no b
7 passed, 0 failed, 3 skipped
"""


def test_what_the_guest_says(guest):
    found = guest(SAID)
    assert (found.passed, found.failed, found.n_skipped(), found.elsewhere) == (7, [], 3, 90)
    assert found.skipped == [(2, "tests.net.test_a and others: this kernel has no a"), (1, "tests.net.test_b: this kernel has no b")]
    assert "7 passed, 0 failed, 3 skipped: 10 of 100 rows" in str(found)
    found = guest(SAID.replace("skipped: 1", "failed: it\nskipped: 1").replace("0 failed", "1 failed"), 1)
    assert found.failed == ["it"] and found.n_skipped() == 3


def test_a_mirror_that_cannot_be_reached_is_a_skip(guest):
    found = guest(fetched="echo get-vm: the mirror cannot be reached >&2; exit 77")
    assert (found.passed, found.failed, found.skipped) == (0, [], [(1, "get-vm: the mirror cannot be reached")])
    assert not guest.command.exists()


def test_anything_else_that_keeps_it_away_is_a_failure(guest):
    assert guest(fetched="echo get-vm: must be root >&2; exit 1").failed == ["get-vm: must be root"]


@pytest.mark.parametrize("said,status", [("== net\n....", 124), ("== net\n....", 125), ("== net\n", 0), ("", 0), (SAID, 1),
                                         (SAID.replace("skipped: 1", "lost: 1"), 0)],
                         ids=["time-out", "died twice", "ended early", "silence", "status", "skips that are not said"])
def test_tests_that_do_not_come_to_their_end_are_a_failure(guest, said, status):
    assert len(guest(said, status).failed) == 1


def words_of(guest, kernel, monkeypatch, full):
    monkeypatch.setenv("FULL", full)
    guest(SAID, kernel=kernel)
    return guest.command.read_text().split()


def test_each_kernel_is_told_its_share(guest, monkeypatch):
    monkeypatch.setenv("XLB_TURN", "9")
    words = words_of(guest, "6.12", monkeypatch, "")
    assert f"--share=2/4/{matrix.ROWS}/{matrix.TURNS}" in words and "--kernels=5.10,6.1,6.12,7.2" in words and "XLB_TURN=9" in words
    assert "FULL=1" not in words and int(words[words.index("-t") + 1]) == 3000
    words = words_of(guest, "7.3", monkeypatch, "")
    assert f"--share=4/5/{matrix.ROWS}/{matrix.TURNS}" in words and "--kernels=5.10,6.1,6.12,7.2,7.3" in words


@pytest.mark.parametrize("kernel", ("5.10", "7.3"))
def test_all_that_there_is(guest, monkeypatch, kernel):
    """FULL=1: no share, no test left out, the guest knows it, and has hours."""
    words = words_of(guest, kernel, monkeypatch, "1")
    assert "FULL=1" in words and words.index("FULL=1") < words.index("--") and words[-1] == "--" and "unit/attach_test" in words
    assert int(words[words.index("-t") + 1]) > 8 * 3600


def test_run_tests_gives_groups_as_long(monkeypatch):
    """As a guest does: not half an hour."""
    for full, seconds in (("", 1800), ("1", 6 * 3600)):
        said = subprocess.run(["/usr/bin/python3", "-c", "import runpy; print(runpy.run_path('scripts/run-tests')['LIMIT_S'])"],
                              env=os.environ | {"FULL": full}, cwd=matrix.TOP, check=True, capture_output=True, text=True)
        assert int(said.stdout) == seconds


# ---- tests/vm/run, with something else in QEMU's place ----

QEMU = """
for word; do case $word in file:*/report) report=${word#file:};; esac; done
echo boot >>"$0.boots"
case $(sed -n "$(wc -l <"$0.boots")p" "$0.plan") in
dies) exit 1;;
hangs) exec sleep 100;;
says*) echo "7 passed"; echo "status 3" >"$report";;
esac
"""
FILES = """exec /usr/bin/python3 -c '
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1].partition("=")[2])' "$1"
"""


@pytest.fixture(name="machine")
def make_machine(tmp_path, monkeypatch):
    """machine("dies", "says") boots one that does this; its exit status, what it printed, and how often it was booted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "xlb/vm"
    qemu = script(cache / "qemu/usr/bin/qemu-system-x86_64", QEMU)
    script(cache / "qemu/tools/usr/lib/qemu/virtiofsd", FILES)
    script(cache / "qemu/tools/bin/busybox", "cat >/dev/null")
    (cache / "6.1").mkdir()
    (cache / "6.1/initrd").touch()

    def boot(*plan, seconds=100):
        qemu.with_name(qemu.name + ".plan").write_text("\n".join(plan) + "\n")
        done = subprocess.run([matrix.TOP / "tests/vm/run", "-k", "6.1", "-t", str(seconds), "true"], capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout, qemu.with_name(qemu.name + ".boots").read_text().count("boot")

    yield boot
    assert not list(cache.glob("run.*"))        # nothing is left of it


def test_the_status_is_the_command_s(machine):
    assert machine("says") == (3, "7 passed\n", 1)


def test_a_guest_that_died_gets_another_try(machine):
    status, said, boots = machine("dies", "says")
    assert (status, boots) == (3, 2) and said == "vm: 6.1: the guest died; once more\n7 passed\n"


def test_only_one(machine):
    status, _, boots = machine("dies", "dies", "says")
    assert (status, boots) == (125, 2)


def test_one_that_takes_too_long_gets_none(machine):
    status, _, boots = machine("hangs", "says", seconds=1)
    assert (status, boots) == (124, 1)


UNREACHABLE = """case $* in *indextargets*) exec /usr/bin/apt-get "$@";; esac
echo "E: Failed to fetch it" >&2
exit 100
"""


def test_get_vm_without_a_mirror(tmp_path):
    """What is not there already cannot be had, which is said in one line, the last one; nothing half made stays. (apt itself would try
    for half a minute.)"""
    script(tmp_path / "bin/apt-get", UNREACHABLE)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run([matrix.TOP / "scripts/get-vm", "6.1"], env=environment, timeout=200, capture_output=True, text=True,
                          check=False)
    assert done.returncode == matrix.NOT_TO_BE_HAD and not done.stdout
    assert done.stderr.splitlines()[-1]== "get-vm: the mirror cannot be reached: E: Failed to fetch it"
    assert not list(tmp_path.glob("xlb/vm/*.new")) and not (tmp_path / "xlb/vm/qemu").exists()
