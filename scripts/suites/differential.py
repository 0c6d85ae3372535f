"""Random operations on two directories, compared step by step: see the script beside this file.

An operation is a value (user, name, arguments), drawn without looking at any result, so that any subset of a failing
run can be run again: that is how a failure is made short. The first directory is the one under test.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
BLOCK = 4096
SLOTS = 8
TREES_EVERY = 100  # Operations between two comparisons of both trees.
DIFFERENCES_MAX = 5
SHRINK_SECS = int(os.environ.get("SHRINK_SECS", 20))
SEVERAL_USERS = os.getuid() == 0 and not os.environ.get("PRIVATE")  # Others are not let into a private mount.
UNTOLD = SEVERAL_USERS and "passthrough" in os.environ.get("MOUNT_OPTIONS", "")  # Who writes to an open file.
STARTED_NS = time.time_ns() - 60 * 10**9

NAMES = [b"a", b"b", b"c", b"d", b"e", b"\xff\xfe odd\n", b"n" * 255]
TIMES = [0, -1, -5 * 10**8 + 7, -(2**31) * 10**9, (2**31 + 5) * 10**9 + 1, 2**33 * 10**9 + 999_999_999, 1_234_567_890_123_456_789]
ACLS = [b"system.posix_acl_access", b"system.posix_acl_default"]
USERS = [(0, 0, []), (1000, 1000, [2000]), (2000, 2000, [])]


class Timespec(ctypes.Structure):
    _fields_ = [("secs", ctypes.c_int64), ("nanos", ctypes.c_int64)]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def noise(seed, length):
    return random.Random(seed).randbytes(length)


def told(mode, info):
    """Returns the mode that a file is given where the kernel has files in its hand: none whose end it does not tell (docs/semantics.md)."""
    return mode & ~(stat.S_ISUID | stat.S_ISGID) if stat.S_ISREG(info.st_mode) else mode


class Side:
    """One of the two directories, with the files that are open in it."""

    def __init__(self, top):
        self.top = top
        self.slots = {}
        self.allocated = set()  # Files whose holes may be shown either way.

    def path(self, path):
        return self.top + b"/" + path

    def fd(self, slot):
        if slot not in self.slots:
            raise OSError(errno.EBADF, "")
        return self.slots[slot]

    def close(self):
        for fd in self.slots.values():
            os.close(fd)
        self.slots.clear()

    # Each method below is one operation; what it returns is compared.

    def open(self, path, flags, mode, slot):
        fd = os.open(self.path(path), flags | os.O_NONBLOCK, mode)
        if slot in self.slots:
            os.close(self.slots[slot])
        self.slots[slot] = fd
        self.forget_allocated(os.fstat(fd))

    def forget_allocated(self, info):
        """A file without bytes has no holes; ext4 uses the numbers of removed files again."""
        if info.st_size == info.st_blocks == 0:
            self.allocated.discard(info.st_ino)

    def close_slot(self, slot):
        os.close(self.fd(slot))
        del self.slots[slot]

    def read(self, slot, length):
        return os.read(self.fd(slot), length)

    def pread(self, slot, offset, length):
        return os.pread(self.fd(slot), length, offset)

    def write(self, slot, seed, length):
        return os.write(self.fd(slot), noise(seed, length))

    def pwrite(self, slot, offset, seed, length):
        return os.pwrite(self.fd(slot), noise(seed, length), offset)

    def truncate(self, path, size):
        os.truncate(self.path(path), size)
        self.forget_allocated(os.stat(self.path(path)))

    def ftruncate(self, slot, size):
        os.ftruncate(self.fd(slot), size)
        self.forget_allocated(os.fstat(self.fd(slot)))

    def fallocate(self, slot, mode, offset, length):
        fd = self.fd(slot)
        checked(LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))
        if not mode & 2:
            self.allocated.add(os.fstat(fd).st_ino)

    def seek(self, slot, offset, whence):
        fd = self.fd(slot)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return None  # The offsets of a directory are its file system's own.
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            return os.lseek(fd, offset, whence)
        try:
            found = os.lseek(fd, offset, whence)
        except OSError as err:
            found = err.errno
        os.lseek(fd, offset, os.SEEK_SET)  # So that both stand at the same place whatever was found.
        return "either" if info.st_ino in self.allocated else found

    def mmap_write(self, slot, offset, seed, length):
        fd = self.fd(slot)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > 8 << 20:
            return None
        with mmap.mmap(fd, info.st_size) as mapped:
            data = noise(seed, max(0, min(length, info.st_size - offset)))
            mapped[offset : offset + len(data)] = data
            mapped.flush()
        self.allocated.add(info.st_ino)  # ext4 allocates all of the folio in its cache, which may be large, and not the page alone.

    def copy_range(self, source, source_offset, target, target_offset, length):
        done = 0
        source, target = self.fd(source), self.fd(target)
        while done < length:  # It may stop early; what counts is the whole.
            copied = os.copy_file_range(source, target, length - done, source_offset + done, target_offset + done)
            if copied == 0:
                break
            done += copied
        # A copy that shares what is stored keeps the holes, as on file systems with reflinks; ext4 writes zeros.
        self.allocated.add(os.fstat(target).st_ino)
        return done

    def sendfile(self, target, source, offset, length):
        target, source = self.fd(target), self.fd(source)
        info = os.fstat(target)
        if os.path.samestat(info, os.fstat(source)) or not stat.S_ISREG(info.st_mode):
            return None  # What is read while it is written may be old or new; a pipe shows what becomes of the pages in it.
        return os.sendfile(target, source, offset, length)

    def fsync(self, slot):
        os.fsync(self.fd(slot))

    def rename(self, old, new, flags):
        checked(LIBC.renameat2(AT_FDCWD, self.path(old), AT_FDCWD, self.path(new), flags))

    def link(self, old, new):
        os.link(self.path(old), self.path(new), follow_symlinks=False)

    def link_open(self, slot, new):
        os.link(b"/proc/self/fd/%d" % self.fd(slot), self.path(new), follow_symlinks=True)

    def symlink(self, target, path):
        os.symlink(target, self.path(path))

    def readlink(self, path):
        return os.readlink(self.path(path))

    def unlink(self, path):
        os.unlink(self.path(path))

    def mkdir(self, path, mode):
        os.mkdir(self.path(path), mode)

    def rmdir(self, path):
        os.rmdir(self.path(path))

    def mknod(self, path, mode, device):
        os.mknod(self.path(path), mode, device)

    def chmod(self, path, mode):
        os.chmod(self.path(path), told(mode, os.stat(self.path(path))) if UNTOLD else mode)

    def fchmod(self, slot, mode):
        os.fchmod(self.fd(slot), told(mode, os.fstat(self.fd(slot))) if UNTOLD else mode)

    def chown(self, path, uid, gid, follow):
        os.chown(self.path(path), uid, gid, follow_symlinks=follow)

    def fchown(self, slot, uid, gid):
        os.fchown(self.fd(slot), uid, gid)

    def utimens(self, path, atime, mtime, follow):
        times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
        checked(LIBC.utimensat(AT_FDCWD, self.path(path), times, 0 if follow else AT_SYMLINK_NOFOLLOW))

    def setxattr(self, path, name, value, flags, follow):
        os.setxattr(self.path(path), name, value, flags, follow_symlinks=follow)

    def getxattr(self, path, name, follow):
        return os.getxattr(self.path(path), name, follow_symlinks=follow)

    def removexattr(self, path, name, follow):
        os.removexattr(self.path(path), name, follow_symlinks=follow)

    def listxattr(self, path):
        return sorted(os.listxattr(self.path(path), follow_symlinks=False))

    def access(self, path, mode):
        return os.access(self.path(path), mode, effective_ids=True)

    def listing(self, path):
        return sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in os.scandir(self.path(path)))

    def listing_while_it_changes(self, path, count):
        """Every name that stays is met once, whatever comes and goes meanwhile."""
        top = self.path(path) + b"/listed"
        os.mkdir(top)
        for at in range(count):
            os.close(os.open(top + b"/stays%d" % at, os.O_CREAT | os.O_WRONLY, 0o600))
            os.close(os.open(top + b"/goes%d" % at, os.O_CREAT | os.O_WRONLY, 0o600))
        met = []
        for at, entry in enumerate(os.scandir(top)):
            met.append(entry.name)
            if at < count:
                os.unlink(top + b"/goes%d" % at)
                os.close(os.open(top + b"/comes%d" % at, os.O_CREAT | os.O_WRONLY, 0o600))
        shutil.rmtree(top)
        return sorted(name for name in met if name.startswith(b"stays"))

    def append_from_processes(self, path, processes, lines):
        children = []
        for _ in range(processes):
            child = os.fork()
            if child == 0:
                try:
                    fd = os.open(self.path(path), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CREAT, 0o666)
                    for _ in range(lines):
                        os.write(fd, b"one line of many\n")
                    os._exit(0)
                except OSError as err:
                    os._exit(err.errno)
            children.append(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    def statfs(self, path):
        found = os.statvfs(self.path(path))
        return found.f_bavail <= found.f_bfree <= found.f_blocks and found.f_ffree <= found.f_files and found.f_namemax == 255


def draw_path(rng):
    depth = rng.choice([1, 1, 2, 2, 2, 3])
    return b"/".join(rng.choice(NAMES[:5] if rng.random() < 0.9 else NAMES) for _ in range(depth))


def draw_acl(rng):
    """An access control list in the form of its extended attribute, mostly a right one."""
    tags = [(1, -1)] + [(2, 1000)] * rng.randrange(2) + [(4, -1)] + [(8, 2000)] * rng.randrange(2)
    tags += [(16, -1)] * (len(tags) > 2 or rng.random() < 0.2) + [(32, -1)]
    entries = b"".join(struct.pack("<HHi", tag, rng.randrange(8), who) for tag, who in tags)
    return struct.pack("<I", 2) + entries[: len(entries) - (rng.random() < 0.05)]


def draw_size(rng):
    kind = rng.random()
    if kind < 0.6:
        return rng.randrange(0, 20_000)
    if kind < 0.9:
        return rng.choice([0, 1, 4095, 4096, 4097, 65_536, 262_143, 262_144, 262_145, 1 << 20])
    return rng.randrange(0, 3 << 20)


def draw_time(rng):
    choice = rng.random()
    if choice < 0.2:
        return (0, UTIME_NOW)
    if choice < 0.4:
        return (0, UTIME_OMIT)
    moment = rng.choice(TIMES)
    return (moment // 10**9, moment % 10**9)


def draw(rng):
    """Draws one operation."""
    path, other, slot = draw_path(rng), draw_path(rng), rng.randrange(SLOTS)
    mode = rng.choice([0o777, 0o755, 0o700, 0o644, 0o600, 0o666, 0o4755, 0o2755, 0o6777, 0o1777, 0o2775, 0o000])
    owner = rng.choice([(-1, 0), (0, -1), (-1, 1000), (1000, -1), (2000, -1), (-1, 2000), (0, 0), (1000, 1000), (2000, 1000)])
    follow = rng.random() < 0.5
    xattr = rng.choice([b"user.one", b"user.two", b"user." + b"x" * 100, b"trusted.one", b"security.one", b"none.one", b"user."])
    length = rng.choice([0, 1, 100, 4096, 5000, 20_000, 70_000, 300_000])
    flags = rng.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR])
    for extra, chance in [
        (os.O_CREAT, 0.7), (os.O_EXCL, 0.1), (os.O_TRUNC, 0.1), (os.O_APPEND, 0.15), (os.O_NOFOLLOW, 0.1), (os.O_DIRECTORY, 0.05),
        (os.O_SYNC, 0.03), (os.O_DSYNC, 0.03),
    ]:
        flags |= extra if rng.random() < chance else 0
    seed = rng.randrange(1 << 30)
    drawn = rng.choices(*zip(*[
        (("open", path, flags, mode, slot), 14),
        (("close_slot", slot), 3),
        (("read", slot, length), 3),
        (("pread", slot, draw_size(rng), length), 4),
        (("write", slot, seed, length), 8),
        (("pwrite", slot, draw_size(rng), seed, length), 10),
        (("pwrite", slot, rng.choice([1 << 33, 1 << 40]), seed, min(length, 5000)), 0.5),
        (("truncate", path, draw_size(rng)), 3),
        (("ftruncate", slot, draw_size(rng)), 4),
        (("ftruncate", slot, rng.choice([1 << 33, 1 << 40])), 0.3),
        (("fallocate", slot, rng.choice([0, 1, 3, 3, 3, 16, 17, 2]), draw_size(rng), max(1, length)), 4),
        (("seek", slot, draw_size(rng), rng.choice([os.SEEK_SET, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE])), 5),
        (("mmap_write", slot, draw_size(rng), seed, length), 3),
        (("copy_range", slot, rng.choice([0, draw_size(rng)]), rng.randrange(SLOTS), rng.choice([0, draw_size(rng)]), rng.choice([length, 1 << 20, 1 << 23])), 3),
        (("sendfile", slot, rng.randrange(SLOTS), draw_size(rng), length), 2),
        (("fsync", slot), 1),
        (("rename", path, other, rng.choice([0, 0, 0, 0, 1, 2, 2, 3])), 12),
        (("link", path, other), 7),
        (("link_open", slot, path), 1),
        (("symlink", rng.choice([draw_path(rng), rng.choice(NAMES), b"nowhere", b"x" * 200]), path), 3),
        (("readlink", path), 1),
        (("unlink", path), 8),
        (("mkdir", path, mode), 10),
        (("rmdir", path), 5),
        (("mknod", path, rng.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK]) | mode, os.makedev(1, 3)), 2),
        (("chmod", path, mode), 4),
        (("fchmod", slot, mode), 1),
        (("chown", path, *owner, follow), 3),
        (("fchown", slot, *owner), 1),
        (("utimens", path, draw_time(rng), draw_time(rng), follow), 4),
        (("setxattr", path, xattr, noise(seed, rng.choice([0, 1, 20, 200])), rng.choice([0, 0, 1, 2]), follow), 4),
        (("setxattr", path, rng.choice(ACLS), draw_acl(rng), 0, True), 3),
        (("removexattr", path, rng.choice(ACLS), True), 1),
        (("getxattr", path, rng.choice([xattr, *ACLS]), follow), 1),
        (("removexattr", path, xattr, follow), 2),
        (("listxattr", path), 1),
        (("access", path, rng.randrange(8)), 2),
        (("listing", path), 2),
        (("listing_while_it_changes", path, rng.choice([3, 200])), 0.1),
        (("append_from_processes", path, 3, 10), 0.2),
        (("statfs", path), 0.3),
    ]))[0]
    user = rng.choice([0, 0, 0, 0, 0, 1, 1, 2]) if SEVERAL_USERS else 0
    return (user, *drawn)


def draw_run(rng, count):
    """Draws a run of operations; checkpoints and the like happen on the first directory alone."""
    for at in range(count):
        chance = rng.random()
        if chance < 0.004:
            yield (0, "checkpoint")
        elif chance < 0.005:
            yield (0, "detour", tuple(draw(rng) for _ in range(rng.choice([5, 40]))))
        elif chance < 0.0065:
            yield (0, "crash")
        else:
            yield draw(rng)


class User:
    """The process acts as one of the users for a while."""

    def __init__(self, user):
        self.uid, self.gid, self.groups = USERS[user]

    def __enter__(self):
        if self.uid:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)

    def __exit__(self, *_):
        if self.uid:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups([])


def perform(side, operation):
    user, name, *arguments = operation
    with User(user):
        try:
            return getattr(side, name)(*arguments)
        except OSError as err:
            return "errno", errno.errorcode.get(err.errno, err.errno)
        except (ValueError, IndexError) as err:
            return "refused", str(err)


def touched(operation):
    """The paths and open files whose description an operation may change."""
    paths, slots = set(), set()
    for at, argument in enumerate(operation[2:]):
        if isinstance(argument, bytes) and operation[1] not in ("setxattr",) or at == 0 and isinstance(argument, bytes):
            paths.add(argument)
            paths.add(os.path.dirname(argument))
        elif isinstance(argument, int) and not isinstance(argument, bool) and 0 <= argument < SLOTS:
            slots.add(argument)
    return sorted(paths) + sorted(slots)


def look(side, what):
    try:
        return os.lstat(side.path(what)) if isinstance(what, bytes) else os.fstat(side.fd(what))
    except (OSError, ValueError) as err:
        return getattr(err, "errno", 0)


def moment(nanos):
    """A time that was set, or that it is the clock's."""
    return nanos if nanos < STARTED_NS or nanos > time.time_ns() + 10**9 else "now"


def described(found):
    """What must be equal of a description."""
    if not isinstance(found, os.stat_result):
        return errno.errorcode.get(found, found)
    kind = stat.S_IFMT(found.st_mode)
    sized = kind in (stat.S_IFREG, stat.S_IFLNK)
    return {
        "mode": oct(found.st_mode),
        "nlink": found.st_nlink,
        "owner": (found.st_uid, found.st_gid),
        "size": found.st_size if sized else None,
        "device": found.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        "mtime": moment(found.st_mtime_ns) if kind != stat.S_IFIFO else None,
        "atime": moment(found.st_atime_ns),
    }


def moved(before, after):
    """Which times an operation moved; nothing when it is another file now. What runs through a pipe is the kernel's alone."""
    if not isinstance(before, os.stat_result) or not isinstance(after, os.stat_result) or before.st_ino != after.st_ino:
        return None
    if stat.S_ISFIFO(after.st_mode):
        return None
    return before.st_mtime_ns != after.st_mtime_ns, before.st_ctime_ns != after.st_ctime_ns


def content(path, size):
    """A digest of a file's blocks that are not zero, and where it has data."""
    digest, data, at = hashlib.sha1(), [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            data.append((start, at))
            for offset in range(start // BLOCK * BLOCK, at, BLOCK):
                block = os.pread(fd, BLOCK, offset)
                if block.strip(b"\0"):
                    digest.update(b"%d" % offset + block)
    finally:
        os.close(fd)
    return digest.hexdigest(), data


def tree(side):
    """Everything below a directory, by path."""
    found, groups, pending = {}, {}, [b""]
    while pending:
        path = pending.pop()
        full = side.path(path)
        try:
            info = os.lstat(full)
        except PermissionError as err:  # A directory of one's own that may be listed and not entered.
            found[path] = {"refused": err.errno}
            continue
        lines = described(info)
        lines["group"] = groups.setdefault(info.st_ino, path) if not stat.S_ISDIR(info.st_mode) else None
        try:
            lines["xattrs"] = {name: os.getxattr(full, name, follow_symlinks=False) for name in os.listxattr(full, follow_symlinks=False)}
            if stat.S_ISREG(info.st_mode):
                lines["content"], data = content(full, info.st_size)
                lines["holes"] = "either" if info.st_ino in side.allocated else data
                lines["blocks"] = info.st_blocks
            elif stat.S_ISLNK(info.st_mode):
                lines["target"] = os.readlink(full)
            elif stat.S_ISDIR(info.st_mode):
                with os.scandir(full) as entries:
                    pending.extend(sorted((path + b"/" if path else b"") + entry.name for entry in entries))
        except PermissionError as err:
            lines["refused"] = err.errno
        found[path] = lines
    return found


def settled_blocks(path):
    """The blocks of a file when none of them waits to be allocated: until then ext4 may count too few."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_blocks
    finally:
        os.close(fd)


def tree_difference(one, two):
    first, second = tree(one), tree(two)
    for path in sorted(first.keys() | second.keys()):
        mine, theirs = first.get(path), second.get(path)
        if mine is None or theirs is None:
            return f"{path!r}: {mine} against {theirs}"
        if "either" in (mine.get("holes"), theirs.get("holes")):
            mine["holes"] = theirs["holes"] = "either"
            mine["blocks"] = theirs["blocks"] = 0
        blocks = mine.pop("blocks", 0), theirs.pop("blocks", 0)
        data = sum(end - start for start, end in mine["holes"]) if isinstance(mine.get("holes"), list) else 0
        # ext4 counts blocks of its own map of the file, and for a while those of a hole that was punched.
        if blocks[1] < blocks[0]:
            blocks = blocks[0], settled_blocks(two.path(path))
        if not data // 512 <= blocks[0] <= blocks[1]:
            return f"{path!r}: {data} bytes of data, {blocks[0]} blocks against {blocks[1]}; data at {mine.get('holes')} against {theirs.get('holes')}"
        unequal = {key: (mine.get(key), theirs.get(key)) for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        if unequal:
            return f"{path!r}: {unequal}"
    return None


def remove_tree(top):
    """Removes a tree of one's own, whatever its modes."""
    if os.getuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", top], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(top)


class Pair:
    """Two empty directories, fresh for every run, and what only the first can do."""

    def __init__(self, one, two, control):
        self.parents, self.control, self.runs = (one, two), control, 0

    def fresh(self):
        self.runs += 1
        sides = []
        for parent in self.parents:
            for old in os.listdir(parent):
                remove_tree(parent + b"/" + old)
            top = parent + b"/run%d" % self.runs
            os.mkdir(top)
            os.chmod(top, 0o777)
            sides.append(Side(top))
        return sides

    def command(self, file, text):
        fd = os.open(self.control + b"/" + file, os.O_WRONLY)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)

    def special(self, sides, operation):
        """Runs what happens on the first directory alone; returns whether both trees are to be compared."""
        name = operation[1]
        if not self.control:
            return False
        if name == "checkpoint":
            self.command(b"checkpoint", b"in the middle\n")
            return False
        for side in sides:
            side.close()
        if name == "detour":
            self.command(b"checkpoint", b"before a detour\n")
            allocated = set(sides[0].allocated)
            for step in operation[2]:
                perform(sides[0], step)
            sides[0].close()
            sides[0].allocated = allocated
            self.command(b"restore", b"@\n")
        elif os.environ.get("CRASH"):
            subprocess.run(["bash", "-c", os.environ["CRASH"]], check=True)
        return True

    def run(self, operations):
        """Runs operations in both directories; returns the place of the first difference and its description."""
        one, two = sides = self.fresh()
        try:
            at = 0
            for at, operation in enumerate(operations):
                if operation[1] in ("checkpoint", "detour", "crash"):
                    compare, difference = self.special(sides, operation), None
                else:
                    compare, difference = False, step(one, two, operation)
                if difference is None and (compare or at % TREES_EVERY == TREES_EVERY - 1):
                    difference = tree_difference(one, two)
                if difference:
                    return at, difference
            difference = tree_difference(one, two)
            return (at, difference) if difference else None
        finally:
            for side in sides:
                side.close()

    def shortened(self, operations):
        """Leaves out what a failure does not need, as long as there is time."""
        give_up = time.monotonic() + SHRINK_SECS
        name = operations[-1][1]
        size = len(operations) // 2
        while size > 0:
            at = 0
            while at < len(operations):
                if time.monotonic() > give_up:
                    return operations
                fewer = operations[:at] + operations[at + size :]
                found = self.run(fewer) if fewer else None
                if found and fewer[found[0]][1] == name:
                    operations = fewer[: found[0] + 1]
                else:
                    at += size
            size //= 2
        return operations


def step(one, two, operation):
    """Performs one operation on both sides; returns what differs afterwards."""
    watched = touched(operation)
    before = [[look(side, what) for what in watched] for side in (one, two)]
    results = [perform(side, operation) for side in (one, two)]
    if results[0] != results[1] and "either" not in results:
        return f"result {shown(results[0])} against {shown(results[1])}"
    for at, what in enumerate(watched):
        after = look(one, what), look(two, what)
        mine, theirs = described(after[0]), described(after[1])
        if mine != theirs:
            return f"{what!r}: {mine} against {theirs}"
        times = moved(before[0][at], after[0]), moved(before[1][at], after[1])
        if times[0] != times[1]:
            return f"{what!r}: mtime and ctime moved: {times[0]} against {times[1]}"
    return None


def shown(result):
    return f"{len(result)} bytes {result[:40]!r}…" if isinstance(result, bytes) and len(result) > 40 else repr(result)


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    pair = Pair(*(os.fsencode(argument) for argument in sys.argv[3:6]))
    os.umask(0o022)
    rng = random.Random(seed)
    print(f"seed {seed}, users {'root and two others' if SEVERAL_USERS else 'one'}", flush=True)
    done = differences = 0
    while done < count and differences < DIFFERENCES_MAX:
        operations = list(draw_run(rng, min(rng.choice([300, 1000, 4000]), count - done)))  # Each run starts with empty directories.
        found = pair.run(operations)
        done += len(operations) if found is None else found[0] + 1
        if found is None:
            continue
        differences += 1
        print(f"operation {found[0]}: {operations[found[0]]}\n    {found[1]}", flush=True)
        short = pair.shortened(operations[: found[0] + 1])
        again = pair.run(short)
        print(f"  the same in {len(short)} operations, of which the last:")
        for operation in short[-25:]:
            print(f"    {operation}")
        print(f"    {again[1] if again else 'which does not always fail'}", flush=True)
    pair.fresh()
    print(f"{done} operations, {differences} differences")
    sys.exit(differences > 0)


main()
