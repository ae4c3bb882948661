# SPDX-License-Identifier: GPL-2.0
"""The matrix of kernels: each boots in a virtual machine (tests/vm/run) and runs scripts/run-tests there, unchanged; what that reports
at its end is read from its output.

Emulation is slow: each kernel runs its share of the tests, and of their rows, another one than the others' (sharing.py), and none of
those marked `heavy`. FULL=1 in the environment: each runs all."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import time

import sharing

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
GET_VM, RUN = TOP / "scripts/get-vm", TOP / "tests/vm/run"
LOGS = TOP / "build/vm"
BYTECODE = LOGS / "python"
KERNELS = ["5.10", "6.1", "6.12", "7.2"]
SLOWEST = ["7.2", "6.1", "6.12", "5.10"]
TESTS = ["unit/datapath_test", "unit/confine_test", "cli/test_attach.py", "cli/test_status.py", "cli/test_rights.py", "api/test_file.py",
         "api/test_rights.py", "packet", "net", "drivers"]      # drivers last: it locks the kernel down
FULL_TESTS = ["unit/attach_test"]
ROWS = 32       # of each test one row in so many is dealt out to the kernels
TURNS = 6       # once in so many days
LANES = 2       # virtual machines at a time; one CPU each, which is faster under emulation than two
NOT_TO_BE_HAD = 77
TOTAL = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
NOT_DEALT = re.compile(r"(\d+) deselected")      # pytest's last line


def full():
    return bool(os.environ.get("FULL"))


def limit_s():
    """For one kernel."""
    return 12 * 3600 if full() else 3000


class Outcome:
    """Of one kernel."""

    def __init__(self, kernel):
        self.kernel, self.passed, self.failed, self.skipped, self.seconds, self.log = kernel, 0, [], [], 0, ""
        self.elsewhere = 0      # rows that this kernel was not dealt

    def read(self, output, status):
        """What the guest's run-tests said at its end: its skips and failures, line by line, and the totals."""
        *lines, last = output.rstrip().splitlines() or [""]
        while lines and (match := re.match(r"failed: (.*)|skipped: (\d+): (.*)", lines[-1])):
            if match[1]:
                self.failed.insert(0, match[1])
            else:
                self.skipped.insert(0, (int(match[2]), match[3]))
            lines.pop()
        total = TOTAL.match(last)
        if total and (int(total[2]), int(total[3])) == (len(self.failed), self.n_skipped()):
            self.passed = int(total[1])
        else:
            self.failed.append(f"the tests did not come to their end: {last[:200]}")
        if status and not self.failed:
            self.failed.append(f"ended with {status}")
        self.elsewhere = sum(map(int, NOT_DEALT.findall(output)))
        self.log = output

    def n_skipped(self):
        return sum(count for count, _ in self.skipped)

    def __str__(self):
        rows = self.passed + len(self.failed) + self.n_skipped()
        return (f"{self.kernel}: {self.passed} passed, {len(self.failed)} failed, {self.n_skipped()} skipped: {rows} of "
                f"{rows + self.elsewhere} rows, {self.seconds:.0f} s")


def fetch(kernel):
    """Why there is no such virtual machine, if there is none."""
    result = subprocess.run([GET_VM, kernel], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            check=False)
    if result.returncode == 0:
        return None, False
    return (result.stderr.strip().splitlines() or ["?"])[-1], result.returncode == NOT_TO_BE_HAD


def tests_for(kernel):
    """Where a test run cannot say by which device a packet came, the rows go over a veth."""
    tests = (FULL_TESTS if full() else []) + TESTS
    return [name if name != "packet" or kernel != "5.10" else "wire" for name in tests]


def options_for(kernel):
    """A kernel's share is the same whichever others are asked for; one that is none of ours gets one besides."""
    if full():
        return []
    kernels = KERNELS if kernel in KERNELS else [*KERNELS, kernel]
    return [f"--share={kernels.index(kernel)}/{len(kernels)}/{ROWS}/{TURNS}", f"--kernels={','.join(kernels)}", "-m", "not heavy"]


def run_one(kernel, tests, options):
    outcome, start = Outcome(kernel), time.monotonic()
    missing, excused = fetch(kernel)
    if missing:
        if excused:
            outcome.skipped.append((1, missing))
        else:
            outcome.failed.append(missing)
        return outcome
    command = [RUN, "-n", "-k", kernel, "-c", "1", "-m", "2048", "-t", str(limit_s()), "env", f"XLB_TURN={sharing.today()}",
               f"PYTHONPYCACHEPREFIX={BYTECODE}", *(["FULL=1"] if full() else []), TOP / "tests/vm/guest-tests", *tests, "--",
               *options_for(kernel), *options]
    log = LOGS / f"{kernel}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    outcome.seconds = time.monotonic() - start
    outcome.read(log.read_text(errors="replace").replace("\r\n", "\n"), status)
    return outcome


def compile_tests():
    """Before run(): what Python makes of the tests and of all that they import, so that the guests need not, for 20 s each."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for group in dict.fromkeys(name.partition("/")[0] for name in TESTS if not name.startswith("unit/")):
        subprocess.run(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", f"tests/{group}"],
                       cwd=TOP, env=environment | {"PYTHONPYCACHEPREFIX": BYTECODE, "XLB_IN_SANDBOX": "1"},
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def slowest_first(kernels):
    """In which order lanes end at about the same time; kernels that are none of ours first."""
    return sorted(kernels, key=lambda kernel: SLOWEST.index(kernel) if kernel in SLOWEST else -1)


def run(kernels=None, options=()):
    """With these options for pytest besides. Yields the outcome of each kernel, as they end."""
    kernels = slowest_first(kernels or os.environ.get("KERNELS", "").split() or KERNELS)
    subprocess.run([GET_VM, *kernels], stdout=subprocess.DEVNULL, check=False)
    with concurrent.futures.ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(run_one, kernel, tests_for(kernel), options) for kernel in kernels]
        for future in concurrent.futures.as_completed(running):
            yield future.result()
