"""Changes of a tree, each one request to the filesystem: how to do them, and how to draw them at random.

An operation is a tuple: its kind, then what `kit.tree.Tree` and `perform` need. What is one request is there or not there;
a write that begins within a page may be two requests.
"""

import ctypes
import errno
import mmap
import os
import random

from .tree import XATTR

PAGE = 4096
# Well below what the kernel cuts into several requests for its length.
WRITE_BYTES_MAX = 120_000
LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_EXCHANGE = 2
PUNCH_HOLE_KEEP_SIZE = 3
NOISE = random.Random(20261124).randbytes(1 << 20)


def noise(seed, length):
    """Returns bytes that name their seed and do not compress."""
    start = seed * 7919 % (len(NOISE) - length - 16)
    return (f"<{seed}>".encode() + NOISE[start:start + length])[:length]


def first_part(operation):
    """Returns what the first request of an operation does when it may be two requests, else None.

    The kernel ends a request behind a page that it fills in part and has not read (fuse_fill_write_pages).
    """
    if operation[0] != "write":
        return None
    _, path, offset, data = operation
    room = PAGE - offset % PAGE
    return ("write", path, offset, data[:room]) if offset % PAGE and room < len(data) else None


def _checked(result, path):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


class Doer:
    """Does operations below a directory. Raises OSError as the system calls do."""

    def __init__(self, top):
        self.top = top

    def perform(self, operation):
        getattr(self, operation[0])(*operation[1:])

    def at(self, path):
        return f"{self.top}/{path}"

    def opened(self, path, flags, work):
        descriptor = os.open(self.at(path), flags | os.O_NONBLOCK)  # It may have become a FIFO.
        try:
            return work(descriptor)
        finally:
            os.close(descriptor)

    def mkdir(self, path, mode):
        os.mkdir(self.at(path), mode)

    def create(self, path, mode):
        os.close(os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))

    def fifo(self, path, mode):
        os.mkfifo(self.at(path), mode)

    def symlink(self, target, path):
        os.symlink(target, self.at(path))

    def write(self, path, offset, data):
        """Writes all of it; the error of a part says in `written` how much had been."""
        def work(descriptor):
            done = 0
            while done < len(data):
                try:
                    done += os.pwrite(descriptor, data[done:], offset + done)
                except OSError as err:
                    err.written = done
                    raise

        self.opened(path, os.O_WRONLY, work)

    def map(self, path, offset, data):
        """Writes through a shared mapping, within a page that lies in the file, and syncs it.

        When the sync fails, the kernel keeps the page that could not be written, on any file system: it is given up here, so that
        what is read next is what the file holds.
        """
        start = offset // PAGE * PAGE

        def work(descriptor):
            try:
                with mmap.mmap(descriptor, min(PAGE, os.fstat(descriptor).st_size - start), offset=start) as mapped:
                    mapped[offset - start:offset - start + len(data)] = data
                    mapped.flush()
            except OSError:
                os.posix_fadvise(descriptor, start, PAGE, os.POSIX_FADV_DONTNEED)
                raise

        self.opened(path, os.O_RDWR, work)

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def punch(self, path, offset, length):
        def work(descriptor):
            call = LIBC.fallocate
            _checked(call(descriptor, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(length)), path)

        self.opened(path, os.O_WRONLY, work)

    def sync(self, path):
        self.opened(path, os.O_RDONLY, os.fsync)

    def rename(self, old, new):
        os.rename(self.at(old), self.at(new))

    def exchange(self, one, other):
        _checked(LIBC.renameat2(-100, self.at(one).encode(), -100, self.at(other).encode(), RENAME_EXCHANGE), one)

    def link(self, path, new):
        os.link(self.at(path), self.at(new), follow_symlinks=False)

    def unlink(self, path):
        os.unlink(self.at(path))

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def orphan(self, path, data):
        """Removes a file and goes on writing into it."""
        def work(descriptor):
            os.unlink(self.at(path))
            try:
                os.pwrite(descriptor, data, 0)
            except OSError as err:
                if err.errno not in (errno.ENOSPC, errno.EIO):
                    raise
                # The name is gone, and that is all that can be seen of it.

        self.opened(path, os.O_WRONLY, work)

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def setxattr(self, path, value):
        os.setxattr(self.at(path), XATTR, value.encode(), follow_symlinks=False)

    def removexattr(self, path):
        os.removexattr(self.at(path), XATTR, follow_symlinks=False)

    def utime(self, path, nanos):
        os.utime(self.at(path), ns=(nanos, nanos), follow_symlinks=False)


# How often each kind is drawn.
WEIGHTS = {
    "create": 14, "mkdir": 4, "fifo": 1, "symlink": 2, "write": 30, "large": 3, "append": 8, "map": 3, "truncate": 4,
    "punch": 2, "sync": 4, "rename": 8, "exchange": 3, "link": 4, "unlink": 7, "rmdir": 2, "orphan": 1, "chmod": 3,
    "setxattr": 3, "removexattr": 1, "utime": 2, "grow": 1,
}
FILES_MAX = 36
SIZE_MAX = 700_000
# A file that grows, part by part, until the store takes over the file that it was written to. A tree has one.
GROWN_MAX = 4_400_000


class Draw:
    """Draws operations that a tree allows."""

    def __init__(self, rng, tree):
        self.rng, self.tree = rng, tree
        self.growing = None

    def operation(self):
        """Returns the next operation."""
        while True:
            kind = "grown" if self.growing else self.rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
            operation = getattr(self, kind)()
            if operation:
                return operation

    def one(self, *kinds):
        paths = self.tree.of_kind(*kinds)
        return self.rng.choice(paths) if paths else None

    def place(self, below=None):
        """Returns a place that may be taken, or not: any of some names in any directory."""
        directories = [path for path in self.tree.of_kind("directory") if path.count("/") < 4]
        directory = self.rng.choice(["", "", *directories])
        name = f"n{self.rng.randrange(40)}"
        return f"{directory}/{name}" if directory else name

    def free(self):
        path = self.place()
        return None if path in self.tree.paths or len(self.tree.paths) >= FILES_MAX else path

    def fresh(self):
        return self.rng.randrange(1 << 40)

    def mkdir(self):
        path = self.free()
        return path and ("mkdir", path, self.rng.choice([0o755, 0o700, 0o711]))

    def create(self):
        path = self.free()
        return path and ("create", path, self.rng.choice([0o644, 0o600, 0o755]))

    def fifo(self):
        path = self.free()
        return path and ("fifo", path, 0o600)

    def symlink(self):
        path = self.free()
        return path and ("symlink", "to/" + "x" * self.rng.randrange(1, 80), path)

    def write(self, length=None):
        path = self.one("file")
        if not path:
            return None
        size = len(self.tree.node(path).data)
        length = length or self.rng.choice([1, 10, 300, 4096, 5000, 20_000])
        offset = self.rng.choice([0, 0, self.rng.randrange(size + 1), min(size + self.rng.randrange(9000), SIZE_MAX)])
        return ("write", path, min(offset, SIZE_MAX), noise(self.fresh(), length))

    def large(self):
        return self.write(self.rng.randrange(60_000, WRITE_BYTES_MAX))

    def append(self):
        path = self.one("file")
        if not path or len(self.tree.node(path).data) > SIZE_MAX:
            return None
        return ("write", path, len(self.tree.node(path).data), noise(self.fresh(), self.rng.randrange(1, 9000)))

    def grow(self):
        """Begins a file that is large before much else happens, unless there is one."""
        path = self.free()
        if not path or any(len(self.tree.node(other).data) > SIZE_MAX + WRITE_BYTES_MAX for other in self.tree.of_kind("file")):
            return None
        self.growing = path
        return ("create", path, 0o644)

    def grown(self):
        """Returns the next part of the file that grows; none when it has grown, or is not there any more."""
        path, self.growing = self.growing, None
        size = len(self.tree.node(path).data) if path in self.tree.of_kind("file") else GROWN_MAX
        if size >= GROWN_MAX:
            return None
        self.growing = path
        return ("write", path, size, noise(self.fresh(), WRITE_BYTES_MAX))

    def map(self):
        path = self.one("file")
        size = len(self.tree.node(path).data) if path else 0
        if not size:
            return None
        start = self.rng.randrange((size + PAGE - 1) // PAGE) * PAGE
        length = self.rng.randrange(1, min(PAGE, size - start) + 1)
        return ("map", path, start + self.rng.randrange(min(PAGE, size - start) - length + 1), noise(self.fresh(), length))

    def truncate(self):
        path = self.one("file")
        sizes = [0, 10, 5000, 262_144, self.rng.randrange(SIZE_MAX)]
        return path and ("truncate", path, self.rng.choice(sizes))

    def punch(self):
        path = self.one("file")
        size = len(self.tree.node(path).data) if path else 0
        return ("punch", path, self.rng.randrange(size), self.rng.randrange(1, 40_000)) if size else None

    def sync(self):
        path = self.one("file", "directory")
        return path and ("sync", path)

    def rename(self):
        old = self.one("file", "directory", "symlink", "fifo")
        if not old:
            return None
        new = self.place()
        if new == old or new.startswith(old + "/") or old.startswith(new + "/"):
            return None
        if new in self.tree.paths:
            is_directory = self.tree.node(old).kind == "directory"
            if is_directory != (self.tree.node(new).kind == "directory") or is_directory and not self.tree.is_empty(new):
                return None
        return ("rename", old, new)

    def exchange(self):
        one, other = (self.one("file", "directory", "symlink", "fifo") for _ in range(2))
        if not one or self.tree.paths[one] == self.tree.paths[other]:
            return None
        return None if other.startswith(one + "/") or one.startswith(other + "/") else ("exchange", one, other)

    def link(self):
        path, new = self.one("file", "symlink"), self.free()
        return path and new and ("link", path, new)

    def unlink(self):
        path = self.one("file", "symlink", "fifo")
        return path and ("unlink", path)

    def rmdir(self):
        path = self.one("directory")
        return ("rmdir", path) if path and self.tree.is_empty(path) else None

    def orphan(self):
        path = self.one("file")
        if path and list(self.tree.paths.values()).count(self.tree.paths[path]) > 1:
            return None  # It would live on under its other names.
        return path and ("orphan", path, noise(self.fresh(), 300))

    def chmod(self):
        path = self.one("file", "directory")
        return path and ("chmod", path, self.rng.choice([0o600, 0o640, 0o755, 0o711]))

    def setxattr(self):
        path = self.one("file", "directory")
        return path and ("setxattr", path, f"{self.fresh()}")

    def removexattr(self):
        path = self.one("file", "directory")
        return ("removexattr", path) if path and self.tree.node(path).xattr is not None else None

    def utime(self):
        path = self.one("file")
        return path and ("utime", path, self.rng.randrange(10**18))
