"""Memory that is a file: mappings, shared and private, and files that change below them; programs run from them."""

import ctypes
import mmap
import os
import resource
import shutil
import struct

from ask import attempt, call, in_child, made, opened, state, whole

PAGE = 4096


def _address(mapped):
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def mappings_and_sizes():
    made("file", b"m" * 5000)
    fd = os.open("file", os.O_RDWR)
    mapped = mmap.mmap(fd, 5000)
    yield mapped[4999], whole("file") == mapped[:]
    area = ctypes.CDLL(None).mmap
    area.restype = ctypes.c_void_p
    base = area(None, ctypes.c_size_t(4 * PAGE), 3, 1, fd, ctypes.c_long(0))

    def peek(offset):
        return lambda: ctypes.string_at(base + offset, 1)

    def poke(offset):
        return lambda: ctypes.memset(base + offset, 65, 1) and "written"
    yield in_child(peek(4999)), in_child(peek(5001)), in_child(peek(8191)), in_child(peek(8192)), in_child(poke(8192)), in_child(poke(5001)), whole("file")[4998:]
    os.ftruncate(fd, 100)
    yield in_child(peek(99)), in_child(peek(100)), in_child(peek(4096)), in_child(poke(4096)), state(fd)
    os.ftruncate(fd, 3 * PAGE)
    yield in_child(peek(4096)), in_child(peek(100)), in_child(poke(3 * PAGE - 1)), in_child(peek(3 * PAGE)), whole("file")[-1:]
    os.unlink("file")
    yield in_child(poke(0)), os.pread(fd, 1, 0)


def protections():
    made("file", b"x" * 5000)
    for flags in (0, 1, 2, os.O_PATH):
        fd = os.open("file", flags)
        for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE, 3):
            for protection in (1, 2, 3, 4, 5, 7):
                yield flags, kind, protection, attempt(lambda: bool(mmap.mmap(fd, 100, flags=kind, prot=protection)))
    yield attempt(lambda: mmap.mmap(os.open("file", 0), 0, prot=1)[:3]), attempt(lambda: bool(mmap.mmap(os.open(".", 0), 100, prot=1)))
    fd = os.open("file", 2)
    yield attempt(lambda: bool(mmap.mmap(fd, 100, flags=3 | 0x80000)))


def private_mappings():
    made("file", b"a" * 8192)
    fd = os.open("file", os.O_RDWR)
    private = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
    private[0] = 98
    os.pwrite(fd, b"ccc", 0)
    os.pwrite(fd, b"ddd", 4096)
    yield private[:3], private[4096:4099], whole("file")[:3]
    shared = mmap.mmap(fd, 8192)
    shared[4100:4103] = b"eee"
    yield private[4100:4103], os.pread(fd, 3, 4100)


def syncs():
    made("file", b"a" * 8192)
    fd = os.open("file", os.O_RDWR)
    mapped = mmap.mmap(fd, 8192)
    mapped[0:3] = b"bbb"
    address = _address(mapped)
    for flags in (0, 1, 2, 4, 5, 6, 7, 8):
        yield flags, attempt(call, "msync", ctypes.c_void_p(address), 8192, flags), os.pread(fd, 3, 0)
    yield attempt(call, "msync", ctypes.c_void_p(address + 1), 4096, 4), attempt(call, "msync", ctypes.c_void_p(0x1000), 4096, 4)
    for advice in (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 20, 21, 22, 23, 99):
        yield advice, attempt(call, "madvise", ctypes.c_void_p(address), 8192, advice), whole("file")[:3].count(b"b"), state(fd)
    yield attempt(call, "mlock", ctypes.c_void_p(address), 8192), attempt(call, "munlock", ctypes.c_void_p(address), 8192)
    vector = ctypes.create_string_buffer(2)
    yield attempt(call, "mincore", ctypes.c_void_p(address), 8192, vector), resource.getpagesize()


def remaps():
    made("file", b"a" * 20_000)
    fd = os.open("file", os.O_RDWR)
    mapped = mmap.mmap(fd, 8192)
    mapped[8191:8192] = b"z"
    mapped.resize(16_384)
    yield len(mapped), mapped[8191:8193], state(fd)
    mapped[16_383] = 66
    mapped.resize(4096)
    yield os.pread(fd, 2, 16_383), state(fd)


def holes_through_mappings():
    fd = opened("file")
    os.ftruncate(fd, 1 << 20)
    mapped = mmap.mmap(fd, 1 << 20)
    mapped[500_000] = 1
    yield mapped[:10], mapped[500_000]
    mapped.flush()
    yield os.pread(fd, 2, 500_000)
    call("fallocate", fd, 3, 499_712, 4096)
    yield mapped[500_000], os.pread(fd, 1, 500_000)
    os.pwrite(fd, b"new", 700_000)
    yield mapped[700_000:700_003]
    source = opened("source")
    os.write(source, b"copied" * 1000)
    os.copy_file_range(source, fd, 6000, 0, 100_000)
    yield mapped[100_000:100_006]
    os.pwrite(fd, b"x" * 3, (1 << 20) - 3)
    yield mapped[(1 << 20) - 3 :]


def two_processes_share():
    fd = opened("file")
    os.ftruncate(fd, 8192)
    mapped = mmap.mmap(fd, 8192)

    def child():
        again = mmap.mmap(os.open("file", 2), 8192)
        again[5:8] = b"kid"
        os.pwrite(os.open("file", 2), b"wrote", 5000)
        return mapped[5:8]
    yield in_child(child), mapped[5:8], mapped[5000:5005], os.pread(fd, 3, 5)


def writes_from_own_mapping():
    """The buffer of a write is a mapping of the file it goes to; reads into one as well."""
    made("file", b"0123456789" * 2000)
    fd = os.open("file", os.O_RDWR)
    mapped = mmap.mmap(fd, 20_000)
    yield os.pwrite(fd, memoryview(mapped)[0:9000], 10_000), whole("file")[10_000:10_020]
    yield os.preadv(fd, [memoryview(mapped)[4096:8192]], 0), mapped[4096:4106]
    call("madvise", ctypes.c_void_p(_address(mapped)), 20_480, 4)
    yield os.pwrite(fd, memoryview(mapped)[0:8192], 4096), hash(bytes(mapped)) == hash(whole("file"))


def programs():
    shutil.copy("/bin/true", "true")
    yield in_child(lambda: os.execv("./true", ["true"])), os.spawnv(os.P_WAIT, "./true", ["true"])
    os.chmod("true", 0o644)
    yield attempt(os.spawnv, os.P_WAIT, "./true", ["true"]), in_child(lambda: os.execv("./true", ["true"]))
    os.chmod("true", 0o755)
    fd = os.open("true", os.O_RDWR)
    yield in_child(lambda: os.execv("./true", ["true"]))
    os.close(fd)
    shutil.copy("/bin/sleep", "sleep")
    child = os.spawnv(os.P_NOWAIT, "./sleep", ["sleep", "30"])
    while not str(attempt(os.readlink, f"/proc/{child}/exe")).endswith("/probe/sleep"):
        pass
    yield attempt(os.open, "sleep", os.O_WRONLY), attempt(os.truncate, "sleep", 0), attempt(os.unlink, "sleep")
    os.kill(child, 9)
    made("script", b"#!/bin/sh\nexit 7\n", 0o755)
    yield os.spawnv(os.P_WAIT, "./script", ["script"])
    made("nothing", b"", 0o755)
    made("bad", b"#!/no/such/interpreter\n", 0o755)
    made("garbage", b"\x7fELFgarbage", 0o755)
    for path in ("./nothing", "./bad", "./garbage", ".", "./missing", "./script/x"):
        yield in_child(lambda: os.execv(path, ["x"]))
    fd = os.open("true", os.O_PATH | os.O_CLOEXEC)
    arguments = (ctypes.c_char_p * 2)(b"true", None)
    yield in_child(lambda: call("syscall", 322, fd, b"", arguments, arguments, 0x1000))
    fd = os.open(".", 0)
    yield in_child(lambda: call("syscall", 322, fd, b"true", arguments, arguments, 0))
    os.symlink("true", "link")
    yield in_child(lambda: call("syscall", 322, fd, b"link", arguments, arguments, 0x100))
    os.chmod("true", 0o6755)
    yield os.spawnv(os.P_WAIT, "./true", ["true"]), state("true")


def roots():
    os.makedirs("root/inside")
    made("root/file", b"x")
    os.symlink("/file", "root/link")

    def jailed():
        os.chroot("root")
        os.chdir("/")
        return [sorted(os.listdir("/")), attempt(whole, "/link"), attempt(os.stat, "/../../missing"), os.getcwd(), attempt(os.rmdir, "/"), attempt(os.rename, "/inside", "/../moved"), sorted(os.listdir("/"))]
    yield in_child(jailed), attempt(os.chroot, "root/file"), attempt(os.chroot, "missing")


def what_is_written_behind_the_end_of_a_mapping():
    """Bytes behind the end of a file, in its last page, are zeros when the file grows over them."""
    for grow in (lambda fd: os.ftruncate(fd, 3 * PAGE), lambda fd: os.pwrite(fd, b"far", 3 * PAGE), lambda fd: os.posix_fallocate(fd, 0, 3 * PAGE), lambda fd: os.pwrite(fd, b"near", 150)):
        fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, b"x" * 100)
        mapped = mmap.mmap(fd, 100)
        ctypes.memset(_address(mapped) + 100, 65, 500)
        mapped.flush()
        grow(fd)
        yield state(fd), os.pread(fd, 60, 95), os.pread(fd, 1 << 20, 0).count(b"A")


def asynchronous_input_and_output():
    """io_submit(2) and what comes back of it."""
    context = ctypes.c_ulong()
    yield attempt(call, "syscall", 206, 8, ctypes.byref(context))
    for flags in (0, os.O_DIRECT):
        fd = os.open(f"file{flags}", os.O_CREAT | os.O_RDWR | flags, 0o644)
        area = mmap.mmap(-1, 2 * PAGE)
        area[:] = b"a" * (2 * PAGE)
        for operation, offset, length in ((1, 0, 8192), (1, 1 << 20, 4096), (0, 0, 8192), (0, 2 << 20, 4096), (2, 0, 0), (3, 0, 0), (9, 0, 0)):
            control = ctypes.create_string_buffer(struct.pack("<QIiHhIQQqQII", 7, 0, 0, operation, 0, fd, _address(area) if length else 0, length, offset, 0, 0, 0), 64)
            pointers = (ctypes.c_void_p * 1)(ctypes.addressof(control))
            submitted = attempt(call, "syscall", 209, ctypes.c_ulong(context.value), 1, pointers)
            event = ctypes.create_string_buffer(32)
            if submitted == 1:
                call("syscall", 208, ctypes.c_ulong(context.value), 1, 1, event, None)
            yield flags, operation, offset, submitted, struct.unpack("<q", event.raw[16:24]), state(fd)


def programs_with_capabilities():
    """What a write by somebody else takes away from a program."""
    shutil.copy("/bin/true", "true")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    yield attempt(os.setxattr, "true", "security.capability", capability)
    yield attempt(os.getxattr, "true", "security.capability"), os.spawnv(os.P_WAIT, "./true", ["true"])
    os.chmod("true", 0o777)
    yield attempt(os.getxattr, "true", "security.capability")
    for action in (lambda: os.write(os.open("true", os.O_WRONLY | os.O_APPEND), b"x"), lambda: os.truncate("true", 5), lambda: os.chown("true", os.getuid(), os.getgid())):
        attempt(os.setxattr, "true", "security.capability", capability)
        yield attempt(action), attempt(os.getxattr, "true", "security.capability"), state("true")
