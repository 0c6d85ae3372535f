"""Bytes: reading, writing, positions, sizes, copies and limits."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import resource
import signal
import struct

from ask import attempt, call, in_child, made, moved, opened, state, whole

MAX = (1 << 63) - 1
LARGE = 1 << 40  # ext4 has files of up to 16 TiB, this file system up to MAX.


def reads_and_writes():
    fd = opened("file")
    for offset, data in ((0, b"abc"), (4095, b"xy"), (1 << 20, b"z"), (MAX, b"x"), (MAX - 1, b"xy"), (-1, b"x"), (1 << 44, b""), (10, b"")):
        yield f"{offset} {data}: {attempt(os.pwrite, fd, data, offset)} {state(fd)}"
    for offset, length in ((0, 3), (0, 0), (2, 10), (1 << 20, 10), ((1 << 20) + 1, 10), (MAX, 1), (-1, 1), (1 << 62, 0)):
        yield f"{offset} {length}: {attempt(os.pread, fd, length, offset)}"
    yield [attempt(os.readv, fd, [bytearray(3), bytearray(0), bytearray(5)]), attempt(os.writev, fd, [b"a", b"", b"bc"]), attempt(os.preadv, fd, [bytearray(4)], 1), attempt(os.pwritev, fd, [b"QQ"], 1)]
    read_only, write_only = os.open("file", 0), os.open("file", 1)
    yield [attempt(os.write, read_only, b"x"), attempt(os.read, write_only, 1), attempt(os.pwrite, read_only, b"", 0), attempt(os.pread, write_only, 0, 0), attempt(os.ftruncate, read_only, 0), attempt(os.read, 999, 1)]
    yield attempt(call, "read", fd, ctypes.c_void_p(1), 10), attempt(call, "write", fd, ctypes.c_void_p(1), 10), state(fd), attempt(call, "pwrite", fd, ctypes.c_void_p(1), 0, ctypes.c_long(0))
    yield attempt(call, "readv", fd, b"", -1), attempt(call, "readv", fd, b"\0" * 16 * 1025, 1025), attempt(call, "readv", fd, b"\0" * 16, 0)
    for flags in (0, os.RWF_HIPRI, 64):
        yield f"preadv2 {flags}: {attempt(os.preadv, fd, [bytearray(3)], 0, flags)}"
    for flags in (0, os.RWF_DSYNC, os.RWF_SYNC, os.RWF_APPEND, os.RWF_HIPRI, 64):
        yield f"pwritev2 {flags}: {attempt(os.pwritev, fd, [b'123'], 0, flags)} {state(fd)}"


def reads_without_waiting():
    fd = opened("file")
    os.write(fd, b"x" * 5000)
    yield attempt(os.preadv, fd, [bytearray(3)], 0, os.RWF_NOWAIT)


def partly_bad_buffers():
    """A write from memory that ends in nothing writes what can be read, or nothing."""
    fd = opened("file")
    area = mmap.mmap(-1, 8192)
    area[:] = b"v" * 8192
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    ctypes.CDLL(None).munmap(ctypes.c_void_p(address + 4096), ctypes.c_size_t(4096))
    yield attempt(call, "write", fd, ctypes.c_void_p(address + 4000), 200), state(fd)
    yield attempt(call, "pread", fd, ctypes.c_void_p(address + 4000), 200, 0)
    made("source", b"s" * 500)
    source = os.open("source", 0)
    yield attempt(call, "read", source, ctypes.c_void_p(address + 4000), 200), os.lseek(source, 0, 1)


def appends():
    fd = os.open("file", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
    yield os.write(fd, b"one"), os.pwrite(fd, b"two", 0), whole("file"), os.lseek(fd, 0, 1)
    os.lseek(fd, 1, 0)
    yield os.read(fd, 2), os.write(fd, b"three"), os.lseek(fd, 0, 1), whole("file")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    yield os.pwrite(fd, b"T", 0), whole("file"), fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_APPEND | 3)
    yield attempt(os.copy_file_range, os.open("/etc/passwd", 0), os.open("file", os.O_WRONLY | os.O_APPEND), 3)
    yield attempt(os.sendfile, os.open("file", os.O_WRONLY | os.O_APPEND), os.open("/etc/passwd", 0), 0, 3)
    yield attempt(call, "fallocate", os.open("file", os.O_WRONLY | os.O_APPEND), 3, 0, 1)


def seeks():
    fd = opened("file")
    os.write(fd, b"x" * 100)
    for offset, whence in ((0, 0), (-1, 0), (LARGE, 0), (0, 1), (1, 1), (-1000, 1), (0, 2), (MAX, 2), (-101, 2), (-100, 2), (5, 3), (100, 3), (101, 3), (-1, 3), (5, 4), (99, 4), (100, 4), (MAX, 3), (MAX, 4), (0, 5), (0, 99)):
        yield f"{offset} {whence}: {attempt(os.lseek, fd, offset, whence)} {os.lseek(fd, 0, 1)}"
    os.mkfifo("fifo")
    yield attempt(os.lseek, os.open("fifo", os.O_RDWR), 0, 0), attempt(os.lseek, os.open("file", os.O_PATH), 0, 0)


def _map(fd):
    size, at, found = os.fstat(fd).st_size, 0, []
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


def holes():
    for size in (1, 4096, 5000, 1 << 20, 300_000):
        fd = opened(f"file{size}")
        os.pwrite(fd, b"d" * 5000, size)
        yield size, _map(fd), state(fd)
        os.fsync(fd)
        os.ftruncate(fd, size + (1 << 22))
        yield _map(fd), os.fstat(fd).st_blocks >= 8
        os.pwrite(fd, b"e", (1 << 21) + 7)
        yield _map(fd)
        yield attempt(call, "fallocate", fd, 3, 1 << 21, 4096), _map(fd)
        yield attempt(call, "fallocate", fd, 3, 0, size + 100), _map(fd), os.pread(fd, 3, size + 98)
        os.ftruncate(fd, size // 2)
        os.ftruncate(fd, size * 2)
        os.fsync(fd)
        yield _map(fd), os.fstat(fd).st_blocks
        os.pwrite(fd, b"\0" * 8192, 0)
        os.fsync(fd)
        yield _map(fd), "zeros that are written are data"


def fallocates():
    yield from _each_range(0, 1, 2, 3, 9, 16, 17, 33, 64, 0x80, 3 | 16, 3 | 8)
    for path, flags in ((".", 0), ("/dev/null", 1)):
        yield attempt(call, "fallocate", os.open(path, flags), 0, 0, 10)
    made("file")
    yield attempt(call, "fallocate", os.open("file", 0), 0, 0, 10), attempt(call, "fallocate", os.open("file", os.O_PATH), 0, 0, 10)
    os.mkfifo("fifo")
    yield attempt(call, "fallocate", os.open("fifo", 2), 0, 0, 10)


def ranges_that_move_others():
    return _each_range(8, 32)


def _each_range(*modes):
    for mode in modes:
        for offset, length in ((0, 4096), (100, 200), (5000, 100_000), (0, 0), (-1, 10), (0, -1), (MAX, 1), (1 << 20, 4096), (4096, 4096)):
            fd = opened("file")
            os.write(fd, b"0123456789" * 1000)
            result = attempt(call, "fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) if mode not in (0, 1, 16, 17) or 0 <= offset < 1 << 40 else "-"
            yield f"{mode:x} {offset} {length}: {result} {state(fd)} {_hash_of(fd)}"
            os.close(fd)
            os.unlink("file")


def _hash_of(fd):
    digest = hashlib.sha1()
    at = 0
    while at < min(os.fstat(fd).st_size, 1 << 22):
        data = os.pread(fd, 1 << 16, at)
        digest.update(data)
        at += len(data)
    return digest.hexdigest()[:12]


def truncates():
    made("file", b"0123456789" * 1000)
    os.symlink("file", "link")
    os.symlink("missing", "dangling")
    for path in ("file", "link", "dangling", ".", "missing", "file/x", "", "n" * 256):
        for size in (5000, -1, 0, 4097, LARGE):
            yield f"{path[:9]} {size}: {attempt(os.truncate, path, size)} {state('file')}"
    fd = os.open("file", os.O_RDWR)
    os.write(fd, b"x" * 6000)
    os.ftruncate(fd, 100)
    os.ftruncate(fd, 7000)
    yield whole("file").count(b"\0"), os.lseek(fd, 0, 1)
    yield attempt(os.ftruncate, os.open("file", 0), 1), attempt(os.ftruncate, os.open("file", os.O_PATH), 1)
    mapped = mmap.mmap(fd, 7000)
    mapped[50:60] = b"m" * 10
    mapped[6990:7000] = b"m" * 10
    os.ftruncate(fd, 55)
    os.ftruncate(fd, 7000)
    yield mapped[45:60], mapped[6990:7000], whole("file")[45:65]


def limits_of_a_process():
    def tried(action):
        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            return action()
        return limited

    def killed(action):
        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            return action()
        return limited
    for at, action in enumerate((lambda fd: os.pwrite(fd, b"x" * 100, 9950), lambda fd: os.pwrite(fd, b"x", 10_000), lambda fd: os.ftruncate(fd, 10_001), lambda fd: os.ftruncate(fd, 10_000), lambda fd: call("fallocate", fd, 0, 0, 20_000),
                                 lambda fd: call("fallocate", fd, 1, 0, 20_000), lambda fd: os.writev(fd, [b"x" * 9000, b"x" * 9000]), lambda fd: os.copy_file_range(os.open("big", 0), fd, 20_000), lambda fd: os.sendfile(fd, os.open("big", 0), 0, 20_000))):
        made("big", b"b" * 30_000)
        for run in (tried, killed):
            fd = opened(f"file{at}{run.__name__}")
            yield f"{at}: {in_child(run(lambda: action(fd)))} {state(fd)}"
    os.chmod("big", 0o644)
    fd = os.open("big", 2)
    yield in_child(killed(lambda: os.pwrite(fd, b"x", 5))), in_child(killed(lambda: os.ftruncate(fd, 20_000))), in_child(killed(lambda: os.pwrite(fd, b"x", 20_000)))


def copies():
    made("source", bytes(range(256)) * 100)
    source, target = os.open("source", 0), opened("target")
    for arguments in ((source, target, 1000), (source, target, 1000, 0, 0), (source, target, 1000, 25_500, 5), (source, target, 1000, 30_000, 5), (source, target, 0), (target, target, 100, 0, 0), (target, target, 100, 0, 200), (target, target, 100, 0, 50),
                      (source, source, 10), (os.open(".", 0), target, 10), (source, os.open("target", os.O_PATH), 10), (source, 999, 10), (source, target, 1 << 40, 0, 100_000)):
        yield f"{arguments[2:]}: {attempt(os.copy_file_range, *arguments)} {os.lseek(source, 0, 1)} {os.lseek(target, 0, 1)} {state(target)} {_hash_of(target)}"
    yield attempt(call, "copy_file_range", source, None, target, None, 10, 1)
    os.mkfifo("fifo")
    fifo = os.open("fifo", os.O_RDWR | os.O_NONBLOCK)
    yield attempt(os.copy_file_range, source, fifo, 10), attempt(os.copy_file_range, fifo, target, 10), attempt(os.copy_file_range, os.open("/dev/zero", 0), target, 10)
    yield attempt(fcntl.ioctl, target, 0x40049409, source)


def sendfiles_and_splices():
    made("source", bytes(range(256)) * 1000)
    source, target = os.open("source", 0), opened("target")
    yield attempt(os.sendfile, target, source, 10, 100_000), attempt(os.sendfile, target, source, None, 5), os.lseek(source, 0, 1), _hash_of(target), attempt(os.sendfile, target, source, 300_000, 5), attempt(os.sendfile, target, source, -1, 5)
    reader, writer = os.pipe()
    yield attempt(os.splice, source, writer, 5000, offset_src=100), attempt(os.splice, reader, target, 5000, offset_dst=7), _hash_of(target)
    yield attempt(os.splice, source, writer, 5000), os.lseek(source, 0, 1), len(os.read(reader, 9000)), attempt(os.splice, source, target, 10), attempt(os.splice, source, writer, 10, offset_src=10_000_000)
    os.write(writer, b"teed")
    reader2, writer2 = os.pipe()
    yield attempt(call, "tee", reader, writer2, 4, 0), os.read(reader2, 10), attempt(os.splice, reader, target, 4, offset_dst=0), os.pread(target, 6, 0)
    appending = os.open("target", os.O_WRONLY | os.O_APPEND)
    os.write(writer, b"more")
    yield attempt(os.splice, reader, appending, 4), state(target)


def advice_and_flushing():
    fd = opened("file")
    os.write(fd, b"x" * 10_000)
    yield [attempt(os.posix_fadvise, fd, 0, 0, how) for how in range(8)], attempt(os.posix_fadvise, fd, -5, 5, 0), attempt(os.posix_fadvise, fd, 0, -1, 0)
    yield [attempt(call, "sync_file_range", fd, 0, 0, flags) for flags in range(9)], attempt(call, "sync_file_range", fd, -1, 0, 1)
    yield attempt(call, "readahead", fd, 0, 4096), attempt(call, "readahead", os.open("file", os.O_WRONLY), 0, 4096), attempt(call, "readahead", os.open(".", 0), 0, 4096)
    yield attempt(os.fsync, fd), attempt(os.fdatasync, fd), attempt(call, "syncfs", fd), attempt(os.fsync, os.open("file", os.O_PATH)), attempt(os.fsync, os.open("file", 0)), attempt(os.fsync, os.open(".", 0))
    os.mkfifo("fifo")
    fifo = os.open("fifo", os.O_RDWR)
    yield attempt(os.fsync, fifo), attempt(os.posix_fadvise, fifo, 0, 0, 0), attempt(call, "sync_file_range", fifo, 0, 0, 1), attempt(call, "readahead", fifo, 0, 1)


def direct_input_and_output():
    fd = os.open("file", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    area = mmap.mmap(-1, 16384)
    area[:] = b"d" * 16384
    yield attempt(os.pwritev, fd, [area], 0), attempt(os.preadv, fd, [area], 0), attempt(os.preadv, fd, [area], 16384), attempt(os.preadv, fd, [area], 8192), state(fd)
    yield attempt(os.pread, os.open("file", 0), 5, 16380)
    os.ftruncate(fd, 5000)
    yield attempt(os.preadv, fd, [area], 4096), attempt(os.preadv, fd, [area], 0)


def locks():
    fd, other = opened("file"), opened("file")
    os.write(fd, b"x" * 100)

    def lock(kind, start=0, length=0, whence=0, pid=0):
        return struct.pack("hhqqi4x", kind, whence, start, length, pid)

    def query(fd, command, *arguments):
        found = fcntl.fcntl(fd, command, lock(*arguments))
        kind, whence, start, length, pid = struct.unpack("hhqqi4x", found)
        return kind, whence, start, length, pid not in (0, -1)
    get, put, wait, oget, oput = fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, 36, 37
    yield attempt(fcntl.fcntl, fd, put, lock(1, 10, 20)) == lock(1, 10, 20), in_child(lambda: query(fd, get, 1)), in_child(lambda: fcntl.fcntl(fd, put, lock(0, 5, 10)) and "got"), in_child(lambda: fcntl.fcntl(fd, put, lock(0, 30, 10)) and "got")
    yield attempt(query, fd, get, 1), attempt(fcntl.fcntl, fd, put, lock(1, -5, 3)), attempt(query, fd, get, 1, 10, -5), attempt(fcntl.fcntl, fd, put, lock(7)), attempt(fcntl.fcntl, os.open("file", 0), put, lock(1)), attempt(fcntl.fcntl, os.open("file", 1), put, lock(0))
    yield [attempt(lambda: bool(fcntl.fcntl(fd, put, lock(2, 12, 3)))), in_child(lambda: query(fd, get, 1)), in_child(lambda: query(fd, get, 1, 15)), in_child(lambda: query(fd, get, 0, 0, 0, 2))]
    os.close(os.open("file", 0))
    yield in_child(lambda: query(fd, get, 1))
    yield attempt(lambda: bool(fcntl.fcntl(fd, oput, lock(1, 0, 10)))), attempt(lambda: bool(fcntl.fcntl(other, oput, lock(0, 5, 1)))), attempt(query, other, oget, 0, 5, 1), attempt(lambda: bool(fcntl.fcntl(fd, put, lock(1, 5, 1))))
    third, fourth = opened("flocked"), opened("flocked")
    yield attempt(fcntl.flock, third, 2 | 4), attempt(fcntl.flock, fourth, 2 | 4), attempt(fcntl.flock, fourth, 1 | 4), attempt(fcntl.flock, third, 1), attempt(fcntl.flock, fourth, 1 | 4), attempt(fcntl.flock, third, 2 | 4), attempt(fcntl.flock, fourth, 8), attempt(fcntl.flock, third, 99)
    yield attempt(fcntl.flock, os.open("flocked", 0), 1 | 4), attempt(fcntl.flock, os.open(".", 0), 2 | 4), attempt(fcntl.flock, os.open("file", os.O_PATH), 1)
    for path in (".",):
        yield attempt(lambda: bool(fcntl.fcntl(os.open(path, 0), put, lock(0))))


def leases():
    fd = opened("file")
    yield attempt(fcntl.fcntl, fd, fcntl.F_SETLEASE, 1), attempt(fcntl.fcntl, fd, fcntl.F_GETLEASE)
    reading = os.open("file", 0)
    yield attempt(fcntl.fcntl, reading, fcntl.F_SETLEASE, 0)
    os.close(fd)
    yield attempt(fcntl.fcntl, reading, fcntl.F_SETLEASE, 0), attempt(fcntl.fcntl, reading, fcntl.F_GETLEASE), attempt(os.open, "file", os.O_WRONLY | os.O_NONBLOCK), attempt(fcntl.fcntl, reading, fcntl.F_SETLEASE, 2), attempt(fcntl.fcntl, reading, fcntl.F_SETLEASE, 9), attempt(fcntl.fcntl, os.open(".", 0), fcntl.F_SETLEASE, 0)


def status_flags():
    fd = opened("file")
    for flags in (0, os.O_APPEND, os.O_NONBLOCK, os.O_NOATIME, os.O_DIRECT, os.O_SYNC, os.O_ASYNC):
        yield f"{flags:o}: {attempt(fcntl.fcntl, fd, fcntl.F_SETFL, flags)} {fcntl.fcntl(fd, fcntl.F_GETFL):o}"
    for flags in (0, 1, 2, os.O_SYNC, os.O_DSYNC, os.O_DIRECT, os.O_PATH, os.O_NOATIME, os.O_CLOEXEC, os.O_DIRECTORY):
        yield f"{flags:o}: {attempt(lambda: oct(fcntl.fcntl(os.open('file', flags), fcntl.F_GETFL)))}"
    yield attempt(fcntl.fcntl, fd, 1034), attempt(fcntl.fcntl, fd, 1033, 1), attempt(fcntl.fcntl, fd, 1036), moved(lambda: None, "file")
    yield [attempt(fcntl.fcntl, fd, command, struct.pack("Q", 2)) for command in (1035, 1036, 1037, 1038)]
