"""Names: making, linking, moving and removing them, and every way in which that is refused."""

import ctypes
import os
import stat
import struct

from ask import AT_FDCWD, AT_REMOVEDIR, LIBC, PRIVATE, attempt, call, in_child, made, moved, opened, state, whole

LONG, TOO_LONG = "n" * 255, "n" * 256
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def _scene():
    """One of each kind."""
    made("file", b"content")
    os.mkdir("dir")
    made("dir/inside", b"x")
    os.mkdir("empty")
    os.symlink("file", "link")
    os.symlink("dir", "dirlink")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")


KINDS = ["file", "dir", "empty", "link", "dirlink", "dangling", "loop", "fifo", "missing", "file/x", "dangling/x", "loop/x", "missing/x",
         "file/", "dir/", "link/", "dirlink/", "dangling/", "missing/", "fifo/", "", ".", "..", "dir/.", "dir/..", "empty/.", TOO_LONG, LONG, "dir/" + TOO_LONG]
KINDS += ["p/" * 2048 + "x", "./" * 2047 + "f"]


def _each(action):
    """An action on one of each kind, in a scene that is made anew each time."""
    top = os.getcwd()
    for kind in KINDS:
        place = f"{top}/scene{len(os.listdir(top))}"
        os.mkdir(place)
        os.chdir(place)
        _scene()
        shown = kind if len(kind) < 30 else f"{kind[:4]}…{len(kind)}"
        yield f"{shown!r}: {attempt(action, kind)} {sorted(name[:10] for name in os.listdir('.'))} {[state(name) for name in ('file', 'dir', 'empty', 'missing')]}"
        os.chdir(top)


def open_flags():
    flags = {"rd": 0, "wr": 1, "rdwr": 2, "creat": os.O_CREAT | 1, "excl": os.O_CREAT | os.O_EXCL, "trunc": os.O_TRUNC | 1, "rdtrunc": os.O_TRUNC, "dir": os.O_DIRECTORY,
             "nofollow": os.O_NOFOLLOW, "path": os.O_PATH, "pathnofollow": os.O_PATH | os.O_NOFOLLOW, "creatdir": os.O_CREAT | os.O_DIRECTORY, "append": os.O_APPEND | 1, "three": 3,
             "noatime": os.O_NOATIME, "direct": os.O_DIRECT, "sync": os.O_SYNC | 1, "creatnofollow": os.O_CREAT | os.O_NOFOLLOW | 2}
    for name, flag in flags.items():
        for line in _each(lambda path: os.close(os.open(path, flag | os.O_NONBLOCK, 0o640))):
            yield f"{name} {line}"


def openat2_resolve():
    for resolve in (1, 2, 4, 8, 16, 32, 64):
        for path in ("file", "link", "dirlink/inside", "../x", "/etc/passwd", "dir/../file", "/proc/self/fd/0"):
            os.makedirs("top", exist_ok=True)
            if not os.path.exists("top/file"):
                os.chdir("top")
                _scene()
                os.chdir("..")
            fd = os.open("top", os.O_PATH)
            how = struct.pack("QQQ", 0, 0, resolve)
            yield f"{resolve} {path}: {attempt(lambda: call('syscall', 437, fd, path.encode(), how, 24) > 0)}"
            os.close(fd)


def mkdirs():
    return _each(lambda path: os.mkdir(path, 0o1777))


def mkfifos():
    return _each(lambda path: os.mkfifo(path, 0o604))


def mknods():
    for kind in (0, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR, stat.S_IFLNK, 0o150000):
        yield f"{kind:o} {attempt(os.mknod, f'node{kind}', kind | 0o7777, os.makedev(7, 300))} {state(f'node{kind}')} {attempt(lambda: os.lstat(f'node{kind}').st_rdev)}"
    yield attempt(os.open, f"node{stat.S_IFCHR}", os.O_RDONLY)
    yield attempt(os.open, f"node{stat.S_IFSOCK}", os.O_RDONLY)
    yield from _each(lambda path: os.mknod(path, stat.S_IFREG | 0o600))


def unlinks():
    return _each(os.unlink)


def rmdirs():
    return _each(os.rmdir)


def unlinkat_flags():
    _scene()
    for flags in (1, AT_REMOVEDIR | 1, AT_REMOVEDIR):
        yield [attempt(call, "unlinkat", AT_FDCWD, path.encode(), flags) for path in ("file", "empty", "dir", "link", "dirlink")]


def links():
    yield from _each(lambda path: os.link(path, "new", follow_symlinks=False))
    yield from _each(lambda path: os.link("file", path))
    yield from _each(lambda path: os.link(path, "new", follow_symlinks=True))


def linkat_empty_path():
    fd = opened("file")
    yield attempt(call, "linkat", fd, b"", AT_FDCWD, b"again", 0x1000)
    yield attempt(call, "linkat", fd, b"", AT_FDCWD, b"third", 0)
    yield attempt(call, "linkat", AT_FDCWD, b"file", AT_FDCWD, b"fourth", 0x8000)
    os.unlink("file")
    yield attempt(os.unlink, "again")
    yield state(fd)
    yield attempt(os.link, f"/proc/self/fd/{fd}", "revived", follow_symlinks=True)  # ENOENT: its last name is gone.
    yield sorted(os.listdir("."))


def symlinks():
    yield from _each(lambda path: os.symlink("target", path))
    for length in (0, 1, 59, 60, 61, 4095, 4096, 5000):
        yield f"{length}: {attempt(os.symlink, 't' * length, f'long{length}')} {attempt(lambda: len(os.readlink(f'long{length}')))} {state(f'long{length}')}"


def readlinks():
    yield from _each(os.readlink)
    os.symlink("abcdef", "short")
    for size in (0, -1, 3, 6, 7):
        buffer = ctypes.create_string_buffer(16)
        yield f"{size}: {attempt(call, 'readlinkat', AT_FDCWD, b'short', buffer, size)} {buffer.raw}"
    yield attempt(call, "readlinkat", os.open("short", os.O_PATH | os.O_NOFOLLOW), b"", ctypes.create_string_buffer(16), 16)


def symlink_chains():
    made("end", b"x")
    last = "end"
    for at in range(45):
        os.symlink(last, f"l{at}")
        last = f"l{at}"
        yield f"{at}: {attempt(lambda: os.stat(last).st_size)}"


def renames():
    yield from _each(lambda path: os.rename(path, "new"))
    yield from _each(lambda path: os.rename("file", path))
    yield from _each(lambda path: os.rename("dir", path))
    yield from _each(lambda path: os.rename("empty", path))
    yield from _each(lambda path: os.rename("link", path))
    yield from _each(lambda path: os.rename("fifo", path))


def renameat2_flags():
    for flags in (NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE, 8, WHITEOUT | EXCHANGE):
        for old in ("file", "dir", "empty", "link", "missing"):
            for line in _each(lambda path: call("renameat2", AT_FDCWD, old.encode(), AT_FDCWD, path.encode(), flags)):
                yield f"{flags} {old} {line}"


def renameat2_whiteout():
    for flags in (WHITEOUT, WHITEOUT | NOREPLACE):
        for line in _each(lambda path: call("renameat2", AT_FDCWD, path.encode(), AT_FDCWD, b"new", flags)):
            yield f"{flags} {line}"
    _scene()
    yield attempt(call, "renameat2", AT_FDCWD, b"file", AT_FDCWD, b"moved", WHITEOUT)
    yield f"{state('file')} {attempt(lambda: os.lstat('file').st_rdev)} {state('moved')}"
    made("other")
    yield moved(lambda: call("renameat2", AT_FDCWD, b"moved", AT_FDCWD, b"other", WHITEOUT), "moved", "other", ".")
    yield moved(lambda: call("renameat2", AT_FDCWD, b"dir", AT_FDCWD, b"empty/dir", WHITEOUT), "dir", "empty", "empty/dir", ".")
    yield [state(name) for name in sorted(os.listdir("."))]
    yield attempt(os.rename, "file", "again")
    yield attempt(os.unlink, "moved")


def rename_keeps_or_moves_times():
    _scene()
    os.link("file", "second")
    yield moved(lambda: os.rename("file", "second"), "file", "second", ".")
    yield moved(lambda: os.rename("file", "dir/file"), "file", "dir/file", "dir", ".")
    yield moved(lambda: os.rename("dir/file", "second"), "dir", "second", ".")
    yield moved(lambda: os.rename("dir", "empty"), "dir", "empty", ".")
    yield moved(lambda: os.rename("empty", "empty"), "empty", ".")
    yield moved(lambda: os.rename("fifo", "link"), "fifo", "link", ".")
    yield moved(lambda: os.unlink("second"), ".")
    yield [state(name) for name in sorted(os.listdir("."))]


def rename_of_ancestors():
    os.makedirs("a/b/c")
    made("a/file")
    for old, new in (("a", "a/b"), ("a", "a/b/c/d"), ("a/b", "a"), ("a/b/c", "a"), ("a", "a"), ("a/b/..", "x"), ("a/file", "a"), ("a", "a/file"), (".", "x"), ("a", "."), ("a", "..")):
        yield f"{old} {new}: {attempt(os.rename, old, new)}"
        yield f"exchanged {attempt(call, 'renameat2', AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), EXCHANGE)}"


def sticky_directories():
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    made("sticky/mine")
    os.mkdir("sticky/mydir")
    if os.getuid() != 0 or PRIVATE:
        return [state("sticky")]

    def other(action):
        def act():
            os.setgroups([])
            os.setresgid(4321, 4321, 4321)
            os.setresuid(4321, 4321, 4321)
            return action()
        return in_child(act)
    return [other(lambda: os.unlink("sticky/mine")), other(lambda: os.rename("sticky/mine", "sticky/x")), other(lambda: os.rmdir("sticky/mydir")),
            other(lambda: made("sticky/theirs")), other(lambda: os.rename("sticky/theirs", "sticky/mine")), other(lambda: os.link("sticky/mine", "sticky/linked")),
            other(lambda: call("renameat2", AT_FDCWD, b"sticky/theirs", AT_FDCWD, b"sticky/mine", EXCHANGE)), other(lambda: made("sticky/mine", b"x")), sorted(os.listdir("sticky"))]


def removed_directories():
    os.mkdir("gone")
    fd = os.open("gone", os.O_RDONLY)
    os.chdir("gone")
    os.rmdir("../gone")
    yield state(".")
    yield state(fd)
    yield [attempt(action) for action in (lambda: made("x"), lambda: os.mkdir("d"), lambda: os.symlink("a", "b"), lambda: os.listdir("."), os.getcwd, lambda: state(".."),
                                         lambda: os.mkfifo("f"), lambda: os.open("nothing", 0), lambda: os.rmdir("../gone"), lambda: os.rename(".", "../x"))]
    yield attempt(os.fchmod, fd, 0o700)
    yield attempt(lambda: os.listdir(fd))
    yield attempt(os.fsync, fd)
    yield attempt(lambda: os.utime(fd, (1, 1)))
    yield state(fd)


def unlinked_files():
    fd = opened("file")
    os.write(fd, b"content")
    yield moved(lambda: os.unlink("file"), fd)
    yield [state(fd), os.pread(fd, 10, 0), attempt(os.ftruncate, fd, 3), attempt(os.fchmod, fd, 0o600), attempt(os.write, fd, b"x"), attempt(os.setxattr, fd, "user.a", b"b")]
    yield [state(fd), attempt(os.getxattr, fd, "user.a"), whole(f"/proc/self/fd/{fd}")]
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    yield [state(again), attempt(os.write, again, b"new"), os.pread(fd, 20, 0), os.readlink(f"/proc/self/fd/{fd}").endswith("file (deleted)")]


def busy_directories():
    os.mkdir("here")
    os.chdir("here")
    yield attempt(os.rmdir, "../here")
    yield attempt(os.rmdir, ".")
    yield attempt(os.rmdir, "..")
    yield attempt(os.rmdir, "/proc/self/cwd")


def directories_as_files():
    fd = os.open(".", os.O_RDONLY)
    yield [attempt(action) for action in (lambda: os.read(fd, 1), lambda: os.pread(fd, 1, 0), lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 0), lambda: os.truncate(".", 0),
                                         lambda: os.posix_fallocate(fd, 0, 1), lambda: os.lseek(fd, 0, os.SEEK_END) >= 0, lambda: os.lseek(fd, -1, os.SEEK_SET), lambda: os.fsync(fd), lambda: os.fdatasync(fd))]
    yield [attempt(os.open, ".", flags) for flags in (1, 2, os.O_CREAT, os.O_TRUNC, os.O_APPEND | 1)]


def listings():
    for at in range(300):
        made(f"f{at}")
    fd = os.open(".", os.O_RDONLY)
    first = sorted(os.listdir(fd))
    made("later")
    os.unlink("f7")
    yield first == sorted(os.listdir(fd))
    yield "later" in os.listdir(fd), "f7" in os.listdir(fd), len(os.listdir(fd))
    entries = list(os.scandir("."))
    yield all(entry.inode() == os.lstat(entry.path).st_ino for entry in entries)
    buffer = ctypes.create_string_buffer(4096)
    os.lseek(fd, 0, 0)
    yield [attempt(_getdents, fd, buffer, size) for size in (0, 1, 23)]
    yield _getdents(fd, buffer, 4096) > 0
    yield attempt(_getdents, opened("f1"), buffer, 4096)


def _getdents(fd, buffer, size):
    return call("syscall", 217, fd, buffer, size)


def telldir_and_seekdir():
    libc = LIBC
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    for at in range(500):
        made(f"f{at}")
    stream = ctypes.c_void_p(libc.opendir(b"."))
    seen = []
    while True:
        place = libc.telldir(stream)
        entry = libc.readdir(stream)
        if not entry:
            break
        seen.append((place, ctypes.string_at(entry + 19)))
    yield len({name for _, name in seen}), len(seen)
    wrong = 0
    for place, name in seen[::-1]:
        libc.seekdir(stream, ctypes.c_long(place))
        wrong += ctypes.string_at(libc.readdir(stream) + 19) != name
    yield f"{wrong} wrong"
    os.unlink("f100")
    made("f1000")
    libc.rewinddir(stream)
    names = set()
    while entry := libc.readdir(stream):
        names.add(ctypes.string_at(entry + 19))
    yield b"f100" in names, b"f1000" in names


def bad_bytes():
    for name in (b"\xff\xfe", b"a\nb", b"a\\b", b" ", b"\x01", "ü".encode(), b"-", b"*", b"." * 3, b".." + b"x", b"con", b"a:b"):
        yield name, attempt(os.mkdir, name), attempt(os.listdir, name), attempt(os.rename, name, name + b"2"), attempt(os.rmdir, name + b"2")


def case_and_normalization_are_kept():
    for name in ("A", "a", "\u00e9", "e\u0301"):
        made(name, name.encode())
    yield sorted(os.listdir(".")), [whole(name) for name in ("A", "a", "\u00e9", "e\u0301")]
