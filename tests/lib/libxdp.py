# SPDX-License-Identifier: GPL-2.0
"""Other people's programs on a device, by libxdp itself. Debian 12's xdp-loader would do, but has a dispatcher of libxdp's inside it that
takes no program which changes packets on kernels since 6.12; newer ones' does, and so does ours, which stands in for it here."""

import contextlib
import ctypes
import os
import socket

from world import TOP, Failed

NATIVE, GENERIC = 1, 2



class Options(ctypes.Structure):
    """struct xdp_program_opts"""
    _fields_ = [("sz", ctypes.c_size_t), ("obj", ctypes.c_void_p), ("opts", ctypes.c_void_p), ("prog_name", ctypes.c_char_p),
                ("find_filename", ctypes.c_char_p), ("open_filename", ctypes.c_char_p), ("pin_path", ctypes.c_char_p),
                ("id", ctypes.c_uint32), ("fd", ctypes.c_int)]


def library():
    xdp = ctypes.CDLL("libxdp.so.1")
    for function in ("xdp_program__create", "xdp_multiprog__get_from_ifindex", "xdp_multiprog__next_prog"):
        getattr(xdp, function).restype = ctypes.c_void_p
    xdp.xdp_program__name.restype = ctypes.c_char_p
    xdp.libxdp_get_error.restype = ctypes.c_long
    return xdp


def checked(xdp, pointer):
    error = xdp.libxdp_get_error(ctypes.c_void_p(pointer))
    if error:
        raise Failed(f"libxdp: {os.strerror(-error)}")
    return ctypes.c_void_p(pointer)


@contextlib.contextmanager
def our_dispatcher():
    os.environ["LIBXDP_OBJECT_PATH"] = str(TOP / "build")
    try:
        yield
    finally:
        del os.environ["LIBXDP_OBJECT_PATH"]


def done(what, error):
    if error:
        raise Failed(f"libxdp: {what}: {os.strerror(-error)}")


def in_a_child(function):
    """Libxdp 1.3 keeps descriptors of programs that it looked at, and so their maps, until the process ends."""
    def run(*arguments):
        child = os.fork()
        if not child:
            try:
                function(*arguments)
                os._exit(0)
            except Failed as error:
                print(error, flush=True)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise Failed(f"libxdp: {function.__name__}{arguments} failed")
    return run


@in_a_child
def load(device, path, name, mode=NATIVE):
    """One program out of an object, each time anew."""
    xdp = library()
    options = Options(ctypes.sizeof(Options), prog_name=name.encode(), open_filename=os.fsencode(path))
    program = checked(xdp, xdp.xdp_program__create(ctypes.byref(options)))
    with our_dispatcher():
        done(f"attaching {name}", xdp.xdp_program__attach(program, socket.if_nametoindex(device), mode, 0))


@in_a_child
def unload(device, name, mode=NATIVE):
    xdp = library()
    index = socket.if_nametoindex(device)
    programs = checked(xdp, xdp.xdp_multiprog__get_from_ifindex(index))
    program = None
    while program := xdp.xdp_multiprog__next_prog(ctypes.c_void_p(program), programs):
        if xdp.xdp_program__name(ctypes.c_void_p(program)) == name.encode():
            break
    if not program:
        raise Failed(f"{name} is not on {device}")
    with our_dispatcher():
        done(f"detaching {name}", xdp.xdp_program__detach(ctypes.c_void_p(program), index, mode, 0))
