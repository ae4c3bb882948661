# SPDX-License-Identifier: GPL-2.0
"""Who may do what: a group that may look, users with some capabilities, containers, and what is said where a right is missing."""
import json
import subprocess

import features
import pytest

from cli_world import PIN_DIR

GROUP, USER = 4242, 65534
MEMBER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={GROUP}", "--"]
OTHER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]


def with_caps(*names, user=USER, group=USER):
    """A user with these capabilities and no others."""
    caps = ",".join(f"+{name}" for name in names)
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", f"--inh-caps={caps}",
            f"--ambient-caps={caps}", f"--bounding-set=-all,{caps}", "--"]


def modes(world):
    """{"": (0o750, 4242), "xdp": (0o640, 4242), ...}"""
    top = world.root / PIN_DIR.lstrip("/")
    paths = {"": top} | {entry.name: entry for entry in top.iterdir()}
    return {name: (path.stat().st_mode & 0o7777, path.stat().st_gid) for name, path in paths.items()}


def skip_where_capabilities_are_needed():
    if missing := features.no_reading_without_capabilities():
        pytest.skip(missing)


@pytest.fixture(name="shared")
def fixture_shared(world):
    world.run("chmod", "755", "/sys/fs/bpf")
    world.lbctl("attach", "veth0", "--max-flows", "1024", "--pin-group", str(GROUP))
    world.ok("services", "add", "192.0.2.10:80/tcp")
    world.ok("backends", "add", "192.0.2.10:80/tcp", "198.51.100.5")
    return world


def test_failed_attach_lets_nobody_in(world):
    """Nor out: who may look is as it was before."""
    world.lbctl("attach", "veth0", "--max-flows", "1024", "--mode", "generic")
    for before in ("0", str(GROUP)):
        world.lbctl("attach", "veth0", "--mode", "generic", "--pin-group", before)
        was = modes(world)
        world.fails("attach", "veth0", "--mode", "native", "--pin-group", str(GROUP + 1))
        assert modes(world) == was


def test_only_root_by_default(world):
    world.lbctl("attach", "veth0")
    assert set(modes(world).values()) == {(0o700, 0), (0o600, 0)}
    assert world.json("status")["pin_group"] is None
    assert "readable for group" not in world.ok("status")


def test_group_owns_all_pins(shared):
    found = modes(shared)
    assert found.pop("") == (0o750, GROUP)
    assert ("counters" in found) == (not features.no_iterators())
    assert "services" in found and set(found.values()) == {(0o640, GROUP)}
    assert shared.json("status")["pin_group"] == str(GROUP)
    assert f"{PIN_DIR}, readable for group {GROUP}\n" in shared.ok("status")


def test_group_by_name_changed_and_taken_back(shared):
    name = "daemon"
    gid = int(shared.run("getent", "group", name).split(":")[2])
    shared.lbctl("attach", "veth0", "--pin-group", name)
    assert modes(shared)[""] == (0o750, gid) and modes(shared)["services"] == (0o640, gid)
    assert shared.json("status")["pin_group"] == name
    shared.lbctl("attach", "veth1")  # it stays without being named
    assert modes(shared)["xdp"] == (0o640, gid)
    shared.lbctl("attach", "veth0", "--pin-group", "0")
    assert set(modes(shared).values()) == {(0o700, 0), (0o600, 0)}


def test_pins_that_came_later_get_it_too(shared):
    later = shared.root / PIN_DIR.lstrip("/") / "rings"
    later.chmod(0o600)
    shared.lbctl("attach", "veth1")
    assert modes(shared)["rings"] == (0o640, GROUP)


@pytest.mark.parametrize("group, complaint", [("no-such-group", "no such group"), ("-1", "no such group"), ("", "no such group"),
                                              ("4294967295", "no such group")])
def test_no_group(world, group, complaint):
    assert complaint in world.refuses("attach", "veth0", "--pin-group", group)


def test_bpffs_that_the_group_may_not_pass(world):
    world.run("chmod", "700", "/sys/fs/bpf")
    result = world.lbctl("attach", "veth0", "--pin-group", str(GROUP))
    assert result.status == 0 and "/sys/fs/bpf: the group may not pass it" in result.err, result
    assert world.lbctl("services", "list", prefix=MEMBER).status == 1


def test_member_may_look(shared):
    """Everything that lbctl shows, without any capability, and the table of counters."""
    skip_where_capabilities_are_needed()
    seen = shared.lbctl("services", "list", "-o", "json", prefix=MEMBER)
    assert seen.status == 0 and json.loads(seen.out) == shared.json("services", "list"), seen
    seen = shared.lbctl("backends", "list", "-o", "json", prefix=MEMBER)
    assert seen.status == 0 and json.loads(seen.out) == shared.json("backends", "list"), seen
    seen = shared.lbctl("status", "-o", "json", prefix=MEMBER)
    assert seen.status == 0, seen
    device, = json.loads(seen.out)["devices"]
    assert (device["device"], device["mode"]) == ("veth0", "native")
    if missing := features.no_iterators():
        pytest.skip(missing)
    assert "198.51.100.5:80" in shared.run(*MEMBER, "cat", f"{PIN_DIR}/counters")


NO_CAP_BPF = f"{PIN_DIR}/config: Operation not permitted (kernel.unprivileged_bpf_disabled is set, and CAP_BPF is missing)"


@pytest.mark.every_run
@pytest.mark.kernels(before=(6, 1))
def test_member_where_looking_takes_a_capability(shared):
    """Told which one, and what asks for it; who has it may look."""
    if not features.no_reading_without_capabilities():
        pytest.skip("this kernel lets everybody use bpf() who may read the pins")
    for words in (["services", "list"], ["status"], ["backends", "list"], ["services", "add", "192.0.2.11:80/tcp"]):
        assert shared.fails(*words, prefix=MEMBER) == NO_CAP_BPF
    seen = shared.lbctl("services", "list", "-o", "json", prefix=with_caps("bpf", group=GROUP))
    assert seen.status == 0 and json.loads(seen.out) == shared.json("services", "list"), seen


@pytest.mark.parametrize("caps", [[], ["bpf", "net_admin", "perfmon"]], ids=["none", "all"])
@pytest.mark.parametrize("words", [["services", "add", "192.0.2.11:80/tcp"], ["services", "del", "192.0.2.10:80/tcp"],
                                   ["backends", "drain", "192.0.2.10:80/tcp", "198.51.100.5"]], ids=" ".join)
def test_member_may_not_write(shared, words, caps):
    if not caps:
        skip_where_capabilities_are_needed()
    prefix = with_caps(*caps, group=GROUP) if caps else MEMBER
    assert "this user may look (--pin-group), and change nothing" in shared.fails(*words, prefix=prefix)


def test_others_may_not_look(shared):
    assert "CAP_BPF" in shared.fails("services", "list", prefix=OTHER)
    line = shared.fails("services", "list", prefix=with_caps("bpf", "net_admin", "perfmon"))
    assert line == f"{PIN_DIR}: Permission denied"
    assert shared.run(*OTHER, "cat", f"{PIN_DIR}/counters", check=False) == ""


READ_ONLY = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    return libc.syscall(321, command, ctypes.create_string_buffer(attributes, 128), 128)
path = ctypes.create_string_buffer(b"%s/config")
flags = int(sys.argv[1])
fd = bpf(7, struct.pack("QII", ctypes.addressof(path), 0, flags))            # BPF_OBJ_GET
if fd < 0:
    sys.exit("open: " + os.strerror(ctypes.get_errno()))
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(4096)
element = struct.pack("I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0)
print("read", bpf(1, element) == 0)                                         # BPF_MAP_LOOKUP_ELEM
print("written", bpf(2, element) == 0)                                      # BPF_MAP_UPDATE_ELEM
""" % PIN_DIR


@pytest.mark.parametrize("flags, said", [(8, "read True\nwritten False\n"), (0, ""), (16, "")], ids=["RDONLY", "RDWR", "WRONLY"])
def test_what_the_kernel_gives_a_member(shared, flags, said):
    """A pin of 0640 opens with BPF_F_RDONLY, and what it gives cannot be written; without that flag it does not open at all, which
    is what bpftool of Debian 12 tries."""
    skip_where_capabilities_are_needed()
    assert shared.run(*MEMBER, "/usr/bin/python3", "-c", READ_ONLY, str(flags), check=False) == said


SOME_BYTES = ["value", "hex", *["5a"] * 8]


@pytest.mark.parametrize("caps", [["bpf"], ["bpf", "net_admin", "perfmon", "sys_admin"]], ids=["bpf", "all"])
@pytest.mark.parametrize("words", [["dump", "pinned", f"{PIN_DIR}/config"],
                                   ["update", "pinned", f"{PIN_DIR}/service_stats", "key", "0", "0", "0", "0", *SOME_BYTES]],
                         ids=["dump", "update"])
def test_bpftool_of_a_member(shared, words, caps):
    """That of Debian 12 opens pins for reading and writing, whatever it is to do: the pins' modes refuse it, and capabilities do
    not help."""
    done = subprocess.run([*shared.enter, *with_caps(*caps, group=GROUP), "bpftool", "map", *words], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode and "bpf obj get" in done.stderr and "Permission denied" in done.stderr, done


# ---- other users with capabilities ----

WATCH_CAPS = ["bpf", "net_admin", "perfmon"]


def given_to(world, user):
    world.run("chmod", "755", "/sys/fs/bpf")
    world.run("chown", "-R", f"{user}:{user}", PIN_DIR)


def test_capabilities_are_enough(world):
    """Services and backends are changed by a user with three capabilities, whose the pins are."""
    world.lbctl("attach", "veth0")
    given_to(world, USER)
    trace = [] if features.no_test_run_with_context() else [["trace", "198.51.100.7:4242", "192.0.2.10:80/tcp"]]
    for words in (["services", "add", "192.0.2.10:80/tcp"], ["backends", "add", "192.0.2.10:80/tcp", "198.51.100.5"],
                  ["status"], *trace, ["backends", "del", "192.0.2.10:80/tcp", "198.51.100.5"]):
        result = world.lbctl(*words, prefix=with_caps(*WATCH_CAPS))
        assert (result.status, result.err) == (0, ""), result
    device, = world.json("status")["devices"]
    assert device["mode"] == "native"


@pytest.mark.parametrize("missing", WATCH_CAPS)
def test_the_missing_one_is_named(world, missing):
    world.lbctl("attach", "veth0")
    given_to(world, USER)
    line = world.fails("services", "list", prefix=with_caps(*[cap for cap in WATCH_CAPS if cap != missing]))
    assert line == f"not permitted: needs CAP_{missing.upper()} (run it as root)"


@pytest.mark.parametrize("words", [["attach", "veth1"], ["detach", "veth0"]], ids=" ".join)
def test_attach_and_detach_need_one_more(world, words):
    world.lbctl("attach", "veth0")
    given_to(world, USER)
    line = world.fails(*words, prefix=with_caps(*WATCH_CAPS))
    assert line == "not permitted: needs CAP_SYS_ADMIN (run it as root)"


# ---- containers ----

CONTAINER = ["unshare", "--user", "--map-root-user", "--mount", "--"]
NOT_COUNTED = "in a user namespace, whose capabilities do not count for BPF and devices outside of it"
ATTACHING = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all,+bpf,+net_admin,+perfmon,+sys_admin"]


@pytest.fixture(name="user_namespaces")
def fixture_user_namespaces():
    if missing := features.no_user_namespaces():
        pytest.skip(missing)


@pytest.mark.usefixtures("user_namespaces")
def test_user_namespace(world):
    """Root there has all capabilities, and none that counts."""
    line = world.fails("attach", "veth0", prefix=CONTAINER)
    assert line == f"the kernel does not take the BPF programs: {NOT_COUNTED}"


@pytest.mark.usefixtures("user_namespaces")
def test_detach_in_a_user_namespace(world):
    """The pins are its root's, the device is not."""
    world.lbctl("attach", "veth0")
    line = world.fails("detach", "veth0", prefix=CONTAINER)
    assert NOT_COUNTED in line


@pytest.mark.usefixtures("user_namespaces")
def test_user_namespace_with_the_pins_given(world):
    """Whose the pins are, as root of such a namespace is seen from outside, may use them; capabilities are not asked for, unless
    kernel.unprivileged_bpf_disabled says so."""
    world.lbctl("attach", "veth0")
    result = world.lbctl("services", "add", "192.0.2.10:80/tcp", prefix=CONTAINER)
    if result.status:
        assert "in a user namespace" in result.err, result
    else:
        assert [service["service"] for service in world.json("services", "list")] == ["192.0.2.10:80/tcp"]


@pytest.mark.usefixtures("user_namespaces")
def test_no_bpffs_and_no_right_to_mount_one(world):
    world.run("umount", "/sys/fs/bpf")
    line = world.fails("attach", "veth7", prefix=["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c",
                                                  'ip link add veth7 type veth && exec "$@"', "-"])
    assert line.startswith("mounting a BPF file system on /sys/fs/bpf: Operation not permitted (in a user namespace")


def test_container_with_the_pins_given(world):
    """Mount, network and process namespaces of its own, three capabilities, bpffs bound in: all but attach works."""
    world.lbctl("attach", "veth0")
    run = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--", "setpriv", "--inh-caps=-all", "--ambient-caps=-all",
           "--bounding-set=-all,+bpf,+net_admin,+perfmon", "--"]
    result = world.lbctl("services", "add", "192.0.2.10:80/tcp", prefix=run)
    assert result.status == 0, result
    result = world.lbctl("backends", "add", "192.0.2.10:80/tcp", "198.51.100.5", prefix=run)
    assert result.status == 0, result
    assert [service["service"] for service in world.json("services", "list")] == ["192.0.2.10:80/tcp"]
    assert "CAP_SYS_ADMIN" in world.fails("attach", "veth1", prefix=run)


def test_four_capabilities_attach_and_detach(world):
    """As root of a container whose securityContext drops all others; Documentation/rights.md."""
    result = world.lbctl("attach", "veth0", prefix=["unshare", "--mount", "--", *ATTACHING, "--"])
    assert result.status == 0, result
    device, = world.json("status")["devices"]
    assert device["device"] == "veth0"
    result = world.lbctl("detach", "--all", prefix=["unshare", "--mount", "--", *ATTACHING, "--"])
    assert result.status == 0 and world.pins() is None, result


@pytest.mark.every_run
@pytest.mark.kernels(before=(5, 11))
def test_limit_of_locked_memory(world):
    """Four capabilities do not raise it; a fifth does."""
    if missing := features.no_limit_of_locked_memory():
        pytest.skip(missing)
    limited = ["prlimit", "--memlock=65536:65536", "--"]
    line = world.fails("attach", "veth0", prefix=[*limited, *ATTACHING, "--"])
    assert line == ("the kernel does not take the BPF programs: before Linux 5.11 they and their maps count as locked memory: "
                    "add CAP_SYS_RESOURCE, or `ulimit -l unlimited`")
    result = world.lbctl("attach", "veth0", prefix=[*limited, *ATTACHING[:-1], ATTACHING[-1] + ",+sys_resource", "--"])
    assert result.status == 0, result
