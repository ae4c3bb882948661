# SPDX-License-Identifier: GPL-2.0
"""What a test needs of the kernel beyond what xlb needs, and old ones lack: each says why it cannot be, or None."""

import functools
import pathlib
import platform
import subprocess

ITERATOR_OBJECT = pathlib.Path(__file__).resolve().parent.parent.parent / "build/tests/lib/iterator.bpf.o"


def release():
    """The running kernel's, as (6, 1)."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int(minor)


def no_test_run_with_context():
    if release() < (5, 15):
        return "before Linux 5.15 a test run of an XDP program cannot say which device the packet came by"
    return None


def no_frames_in_several_buffers():
    if release() < (6, 3):
        return "before Linux 6.3 XDP redirects no frames in several buffers: devices with a larger MTU take generic mode"
    return None


def no_reading_without_capabilities():
    setting = pathlib.Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text(encoding="ascii")
    if release() < (6, 1) and int(setting):
        return "old kernels with kernel.unprivileged_bpf_disabled let nobody use bpf() who has no CAP_BPF"
    return None


@functools.cache
def no_iterators():
    """Asked by a program of the tests' own, pinned where only this sandbox sees it: xlb's may be what is wrong."""
    pin = "/sys/fs/bpf/xlb-tests-iterator"
    loaded = subprocess.run(["bpftool", "prog", "load", ITERATOR_OBJECT, pin], check=False, capture_output=True, text=True)
    if not loaded.returncode:
        pathlib.Path(pin).unlink()
        return None
    refused = [line for line in loaded.stderr.splitlines() if "load failed: " in line]
    return f"this kernel takes no BPF iterators ({refused[0].rpartition(': ')[2] if refused else loaded.stderr.strip()})"


def no_limit_of_locked_memory():
    if release() >= (5, 11):
        return "since Linux 5.11 BPF's memory does not count as locked memory"
    return None


def no_module(name):
    """Loads it, if it is one."""
    if pathlib.Path("/proc/net", name).exists():
        return None
    if subprocess.run(["modprobe", "-q", name], check=False, stderr=subprocess.DEVNULL).returncode:
        return f"this kernel has no {name}"
    return None


def no_user_namespaces():
    """The kernel makes none in a chroot."""
    if subprocess.run(["unshare", "--user", "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        return "no user namespace can be made here (in a chroot the kernel makes none)"
    return None
