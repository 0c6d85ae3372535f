"""Which times an operation moves, and how they are set."""

import mmap
import os
import struct
import time

from ask import AT_FDCWD, attempt, call, made, moved, opened, state


def changes_move_times():
    made("file", b"content" * 100)
    os.mkdir("dir")
    fd = os.open("file", os.O_RDWR)
    for name, action in {
        "write": lambda: os.write(fd, b"x"), "empty write": lambda: os.write(fd, b""), "pwrite": lambda: os.pwrite(fd, b"x", 5), "writev": lambda: os.writev(fd, [b"a", b"b"]),
        "empty writev": lambda: os.writev(fd, [b""]), "truncate same": lambda: os.truncate("file", os.path.getsize("file")), "truncate up": lambda: os.truncate("file", 5000),
        "truncate down": lambda: os.truncate("file", 10), "ftruncate same": lambda: os.ftruncate(fd, 10), "ftruncate": lambda: os.ftruncate(fd, 11), "fallocate": lambda: os.posix_fallocate(fd, 0, 100),
        "fallocate inside": lambda: os.posix_fallocate(fd, 0, 10), "keep size": lambda: call("fallocate", fd, 1, 0, 8192), "punch": lambda: call("fallocate", fd, 3, 0, 4096), "punch behind": lambda: call("fallocate", fd, 3, 1 << 20, 4096),
        "zero": lambda: call("fallocate", fd, 16, 0, 4096), "chmod": lambda: os.chmod("file", 0o600), "chmod same": lambda: os.chmod("file", 0o600), "chown": lambda: os.chown("file", -1, -1), "chown same": lambda: os.chown("file", os.getuid(), os.getgid()),
        "link": lambda: os.link("file", "dir/link"), "unlink": lambda: os.unlink("dir/link"), "rename": lambda: os.rename("file", "dir/file") or os.rename("dir/file", "file"),
        "utimens omit": lambda: call("utimensat", AT_FDCWD, b"file", _spec((0, (1 << 30) - 2), (0, (1 << 30) - 2)), 0), "utimens now": lambda: call("utimensat", AT_FDCWD, b"file", None, 0), "utimens mtime": lambda: os.utime("file", ns=(os.stat("file").st_atime_ns, 5)),
        "read": lambda: os.pread(fd, 10, 0), "fsync": lambda: os.fsync(fd), "open trunc": lambda: os.close(os.open("file", os.O_TRUNC | os.O_WRONLY)), "open trunc empty": lambda: os.close(os.open("file", os.O_TRUNC | os.O_WRONLY)),
        "creat existing": lambda: os.close(os.open("file", os.O_CREAT | os.O_WRONLY)), "create": lambda: made("dir/new"), "mkdir": lambda: os.mkdir("dir/sub"), "rmdir": lambda: os.rmdir("dir/sub"), "symlink": lambda: os.symlink("x", "dir/s"),
        "mkfifo": lambda: os.mkfifo("dir/p"), "rename inside": lambda: os.rename("dir/p", "dir/q"), "create failing": lambda: os.open("dir/new", os.O_CREAT | os.O_EXCL), "unlink failing": lambda: os.unlink("dir/no"),
        "copy range": lambda: os.copy_file_range(os.open("/etc/passwd", 0), fd, 10, None, 0), "copy nothing": lambda: os.copy_file_range(os.open("/etc/passwd", 0), fd, 10, 1 << 20, 0), "splice": lambda: _spliced(fd),
        "access": lambda: os.access("file", 4), "stat": lambda: os.stat("file").st_size, "list": lambda: len(os.listdir("dir")), "sync range": lambda: call("sync_file_range", fd, 0, 0, 7),
    }.items():
        yield f"{name}: {moved(action, 'file', 'dir', '.')}"


def _spec(atime, mtime):
    return struct.pack("qqqq", *atime, *mtime)


def _spliced(fd):
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    return os.splice(reader, fd, 14, offset_dst=0)


def utimens():
    made("file")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    for spec in [((1, 2), (3, 4)), ((0, now), (0, omit)), ((0, omit), (5, 999_999_999)), ((1, 1_000_000_000), (0, 0)), ((1, -1), (0, 0)), ((-5, 0), (-1, 999_999_999)), ((1 << 31, 0), (1 << 33, 1)), ((-(1 << 31), 0), (-(1 << 31) + 1, 0)), ((7, omit), (7, omit))]:
        for path, flags in ((b"file", 0), (b"link", 0), (b"link", 0x100), (b"dangling", 0), (b"dangling", 0x100), (b"missing", 0), (b"", 0x1000), (b"file", 8)):
            result = attempt(call, "utimensat", AT_FDCWD, path, _spec(*spec), flags)
            info = attempt(os.lstat, path)
            shown = info if isinstance(info, str) else [stamp if abs(stamp - time.time_ns()) > 60 * 10**9 else "now" for stamp in (info.st_atime_ns, info.st_mtime_ns)]
            yield f"{spec} {path} {flags:x}: {result} {shown}"


def times_of_new_files():
    before = time.time_ns() - 20_000_000
    made("file")
    os.mkdir("dir")
    os.symlink("x", "link")
    after = time.time_ns()
    for path in ("file", "dir", "link"):
        info = os.lstat(path)
        yield [before <= stamp <= after for stamp in (info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns)], info.st_mtime_ns == info.st_ctime_ns == info.st_atime_ns


def mapped_writes_move_times():
    made("file", b"x" * 10000)
    fd = os.open("file", os.O_RDWR)
    mapped = mmap.mmap(fd, 10000)

    def write():
        mapped[100] = 7
        mapped.flush()
    yield moved(write, "file")
    yield moved(write, "file")
    yield moved(lambda: mapped.flush(), "file")
    yield moved(lambda: mapped[5], "file")
    mapped.close()
    private = mmap.mmap(fd, 10000, access=mmap.ACCESS_COPY)

    def write_privately():
        private[5] = 9
    yield moved(write_privately, "file"), state("file")


def futimes_and_opath():
    fd = opened("file")
    yield attempt(os.utime, fd, (1, 2)), os.fstat(fd).st_mtime
    path = os.open("file", os.O_PATH)
    yield attempt(os.utime, path, (3, 4)), attempt(os.utime, f"/proc/self/fd/{path}", (5, 6)), os.fstat(fd).st_mtime
    os.close(os.open("ro", os.O_CREAT | os.O_RDONLY, 0o444))
    yield attempt(os.utime, "ro", (1, 2)), attempt(os.utime, "ro")


def order_of_times():
    """A later change never has an earlier time."""
    last = 0
    wrong = 0
    for at in range(200):
        made(f"f{at}", b"x")
        stamp = os.stat(f"f{at}").st_mtime_ns
        wrong += stamp < last
        last = stamp
        os.mkdir(f"d{at}")
        stamp = os.stat(f"d{at}").st_ctime_ns
        wrong += stamp < last
        last = stamp
    yield wrong
    fd = opened("file")
    for at in range(50):
        os.write(fd, b"x")
        stamp = os.fstat(fd).st_mtime_ns
        wrong += stamp < last
        last = stamp
    yield wrong
