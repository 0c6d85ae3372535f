"""Modes, owners, attributes, extended attributes and access."""

import ctypes
import fcntl
import os
import stat
import struct

from ask import AT_FDCWD, PRIVATE, attempt, call, in_child, made, moved, opened, state

OWNERS = [(-1, -1), (0, 0), (65534, 65534), (-1, 65534), (65534, -1), (1234, -1), (-1, 1234), (0xFFFFFFFE, 0xFFFFFFFE)]


def chmods():
    for kind, make in (("file", made), ("dir", os.mkdir), ("fifo", os.mkfifo)):
        make(kind)
        for mode in (0, 0o777, 0o7777, 0o2755, 0o4711, 0o1000, 0o100644, 0o177777):
            yield f"{kind} {mode:o}: {attempt(os.chmod, kind, mode)} {state(kind)}"
        os.chmod(kind, 0o755)
    os.symlink("file", "link")
    yield moved(lambda: os.chmod("link", 0o601), "link", "file")
    yield attempt(call, "fchmodat", AT_FDCWD, b"link", 0o600, 0x100)
    yield attempt(call, "syscall", 452, AT_FDCWD, b"link", 0o600, 0x100)
    yield attempt(call, "syscall", 452, AT_FDCWD, b"file", 0o640, 0x100)
    fd = os.open("file", os.O_PATH)
    yield attempt(os.fchmod, fd, 0o600), attempt(call, "syscall", 452, fd, b"", 0o611, 0x1000), state("file")
    yield moved(lambda: os.chmod("file", 0o611), "file")
    yield attempt(os.chmod, "missing", 0o600), attempt(os.chmod, "file/x", 0o600)


def chowns():
    for owner in OWNERS:
        for mode in (0o6755, 0o2644, 0o6644, 0o4711, 0o2711):
            made("file")
            attempt(os.chmod, "file", mode)
            yield f"{owner} {mode:o}: {moved(lambda: os.chown('file', *owner), 'file')} {state('file')}"
            os.unlink("file")
        os.mkdir("dir")
        os.chmod("dir", 0o6755)
        yield f"dir {owner}: {moved(lambda: os.chown('dir', *owner), 'dir')} {state('dir')}"
        os.rmdir("dir")
        os.symlink("nowhere", "link")
        yield f"link {owner}: {moved(lambda: os.lchown('link', *owner), 'link')} {state('link')}"
        os.unlink("link")
    yield attempt(os.chown, "missing", 0, 0)


def foreign_files():
    """What somebody may do to files that are not his."""
    if os.getuid() != 0 or PRIVATE:
        return [state(".")]
    os.chmod(".", 0o777)
    lines = []
    for mode in (0o644, 0o666, 0o600, 0o622, 0o444, 0o555, 0o711, 0o6777):
        for kind in ("file", "dir"):
            if kind == "file":
                made("file", b"content")
            else:
                os.mkdir("dir")
                made("dir/inside")
            os.chmod(kind, mode)

            def tried():
                os.setgroups([])
                os.setresgid(1000, 1000, 1000)
                os.setresuid(1000, 1000, 1000)
                return [attempt(action) for action in (
                    lambda: os.chmod(kind, 0o700), lambda: os.chown(kind, 1000, -1), lambda: os.chown(kind, -1, 1000), lambda: os.utime(kind), lambda: os.utime(kind, (1, 1)),
                    lambda: os.close(os.open(kind, os.O_RDONLY)), lambda: os.close(os.open(kind, os.O_WRONLY)), lambda: os.truncate(kind, 1), lambda: os.listdir(kind),
                    lambda: os.stat(kind + "/inside").st_size, lambda: made(kind + "/new"), lambda: os.unlink(kind + "/inside"), lambda: os.setxattr(kind, "user.a", b"b"),
                    lambda: os.getxattr(kind, "user.a"), lambda: os.listxattr(kind), lambda: [os.access(kind, how) for how in range(8)], lambda: os.close(os.open(kind, os.O_NOATIME)),
                    lambda: os.link(kind, "linked"), lambda: os.chdir(kind), lambda: os.execv(kind, [kind]))]
            lines.append(f"{kind} {mode:o}: {in_child(tried)} {state(kind)}")
            for path in ("file", "dir/inside", "dir/new", "linked"):
                attempt(os.unlink, path)
            attempt(os.rmdir, "dir")
    return lines


def new_files_get_group_and_modes():
    os.mkdir("setgid")
    attempt(os.chown, "setgid", -1, 1234)
    os.chmod("setgid", 0o2777)
    for mask in (0, 0o022, 0o077, 0o777):
        os.umask(mask)
        made(f"setgid/f{mask}", mode=0o7777)
        os.mkdir(f"setgid/d{mask}", 0o7777)
        os.mkfifo(f"setgid/p{mask}", 0o6666)
        os.symlink("x", f"setgid/s{mask}")
        yield [state(f"setgid/{kind}{mask}") for kind in "fdps"]
        os.umask(0o022)
    yield state("setgid")


def privileges_end():
    def attempts(action):
        made("file", b"content" * 1000)
        os.chmod("file", 0o6777)
        result = in_child(lambda: (PRIVATE or attempt(os.setresuid, 65534, 65534, 65534), action())[1])
        line = f"{result} {state('file')}"
        os.unlink("file")
        return line
    os.chmod(".", 0o777)
    yield attempts(lambda: os.truncate("file", 10))
    yield attempts(lambda: os.truncate("file", 7000))
    yield attempts(lambda: os.write(os.open("file", 1), b"x"))
    yield attempts(lambda: os.write(os.open("file", 1), b""))
    yield attempts(lambda: os.close(os.open("file", os.O_TRUNC | 1)))
    yield attempts(lambda: os.posix_fallocate(os.open("file", 1), 0, 10000))
    yield attempts(lambda: call("fallocate", os.open("file", 1), 3, 0, 4096))
    yield attempts(lambda: os.link("file", "l") or os.unlink("l"))
    yield attempts(lambda: os.setxattr("file", "user.a", b"b"))
    yield attempts(lambda: os.copy_file_range(os.open("/etc/passwd", 0), os.open("file", 1), 10))
    yield attempts(lambda: os.sendfile(os.open("file", 1), os.open("/etc/passwd", 0), 0, 10))
    yield attempts(lambda: os.chown("file", -1, -1)) if os.getuid() != 0 else ""


def xattrs():
    made("file")
    os.mkdir("dir")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    names = ["user.a", "user.", "user", "trusted.a", "trusted.", "security.a", "security.", "system.a", "none.a", "", "user." + "n" * 250, "user." + "n" * 251, "USER.a", "user.a\udcff", "system.posix_acl_access", "system.posix_acl_default"]
    for path in ("file", "dir", "link", "fifo", "missing"):
        for name in names:
            yield f"{path} {name[:20]}: " + " ".join(str(attempt(action)) for action in (
                lambda: os.getxattr(path, name, follow_symlinks=False), lambda: os.setxattr(path, name, b"value", follow_symlinks=False), lambda: os.getxattr(path, name, follow_symlinks=False),
                lambda: os.setxattr(path, name, b"", os.XATTR_CREATE, follow_symlinks=False), lambda: os.setxattr(path, name, b"", os.XATTR_REPLACE, follow_symlinks=False),
                lambda: sorted(os.listxattr(path, follow_symlinks=False)), lambda: os.removexattr(path, name, follow_symlinks=False), lambda: os.removexattr(path, name, follow_symlinks=False)))


def xattr_buffers():
    made("file")
    os.setxattr("file", "user.one", b"12345678")
    os.setxattr("file", "user.empty", b"")
    for size in (0, 1, 7, 8, 9, 65536, 65537, 1 << 20):
        buffer = ctypes.create_string_buffer(max(size, 1))
        yield f"{size} {attempt(call, 'getxattr', b'file', b'user.one', buffer, size)} {attempt(call, 'getxattr', b'file', b'user.empty', buffer, size)} {attempt(call, 'listxattr', b'file', buffer, size)}"
    yield attempt(call, "setxattr", b"file", b"user.flags", b"x", 1, 3)
    yield attempt(call, "setxattr", b"file", b"user.flags", b"x", 1, 4)
    yield attempt(call, "setxattr", b"file", b"user.big", ctypes.create_string_buffer(65537), 65537, 0)
    yield attempt(call, "setxattr", b"file", b"user." + b"n" * 251, b"x", 1, 0)
    fd = os.open("file", os.O_PATH)
    yield attempt(os.getxattr, fd, "user.one"), attempt(os.setxattr, fd, "user.one", b"x"), attempt(os.listxattr, fd)


def xattrs_move_times():
    made("file")
    yield moved(lambda: os.setxattr("file", "user.a", b"b"), "file")
    yield moved(lambda: os.setxattr("file", "user.a", b"b"), "file")
    yield moved(lambda: os.setxattr("file", "user.a", b"b", os.XATTR_CREATE), "file")
    yield moved(lambda: os.getxattr("file", "user.a"), "file")
    yield moved(lambda: os.removexattr("file", "user.a"), "file")
    yield moved(lambda: os.removexattr("file", "user.a"), "file")


def accesses():
    made("file")
    os.mkdir("dir")
    for path in ("file", "dir", "missing", "file/x", ""):
        for mode in (0, 0o111, 0o444, 0o222, 0o755, 0o010):
            attempt(os.chmod, path, mode)
            yield f"{path} {mode:o} {[os.access(path, how) for how in range(8)]} {attempt(call, 'faccessat', AT_FDCWD, path.encode(), 8, 0)} {attempt(call, 'syscall', 439, AT_FDCWD, path.encode(), 4, 0x200)}"
    attempt(os.chmod, "dir", 0o755)
    os.symlink("missing", "dangling")
    yield attempt(call, "syscall", 439, AT_FDCWD, b"dangling", 0, 0x100), attempt(call, "syscall", 439, AT_FDCWD, b"dangling", 0, 0), attempt(call, "syscall", 439, AT_FDCWD, b"", 0, 0x1000)


def statx_fields():
    made("file", b"12345")
    os.symlink("file", "link")
    for path in (b"file", b"link", b".", b"missing", b""):
        for flags in (0, 0x100, 0x1000, 0x2000, 0x4000, 0x6000, 0x10000):
            for mask in (0, 1, 0x7FF, 0xFFF & ~0x800):
                buffer = ctypes.create_string_buffer(256)
                result = attempt(call, "statx", AT_FDCWD, path, flags, mask, buffer)
                found = int.from_bytes(buffer.raw[:4], "little")
                yield f"{path} {flags:x} {mask:x}: {result} {found & mask:x} mode {int.from_bytes(buffer.raw[28:30], 'little'):o}"
    yield attempt(call, "statx", AT_FDCWD, b"file", 0, 0x80000000, buffer)


def statvfs_and_statfs():
    made("file")
    found = os.statvfs("file")
    yield found.f_namemax, found.f_bavail <= found.f_bfree <= found.f_blocks, found.f_ffree <= found.f_files, found.f_bsize, found.f_frsize, found.f_files > 0
    yield attempt(os.statvfs, "missing"), attempt(os.statvfs, "file/x")
    yield [attempt(os.pathconf, "file", name) for name in ("PC_NAME_MAX", "PC_PATH_MAX", "PC_PIPE_BUF", "PC_CHOWN_RESTRICTED", "PC_NO_TRUNC", "PC_2_SYMLINKS")]


def acls():
    def acl(*entries):
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    plain = acl((1, 6, -1), (4, 4, -1), (32, 4, -1))
    extended = acl((1, 7, -1), (2, 5, 1000), (4, 5, -1), (16, 7, -1), (32, 0, -1))
    made("file")
    os.mkdir("dir")
    for value in (plain, extended, acl(), acl((1, 6, -1)), acl((1, 7, -1), (2, 5, 1000), (4, 5, -1), (32, 0, -1)), acl((1, 8, -1), (4, 4, -1), (32, 4, -1)), plain[:-1], b"", plain[4:], acl((4, 4, -1), (1, 6, -1), (32, 4, -1)), acl((1, 7, -1), (2, 5, 1000), (2, 5, 1000), (4, 5, -1), (16, 7, -1), (32, 0, -1))):
        for name in ("system.posix_acl_access", "system.posix_acl_default"):
            for path in ("file", "dir"):
                yield f"{path} {name[-7:]} {moved(lambda: os.setxattr(path, name, value), path)} {state(path)} {attempt(os.getxattr, path, name)} {sorted(os.listxattr(path))}"
    os.setxattr("dir", "system.posix_acl_default", extended)
    made("dir/new", mode=0o666)
    os.mkdir("dir/sub", 0o777)
    os.mkfifo("dir/fifo", 0o600)
    for path in ("dir/new", "dir/sub", "dir/fifo"):
        yield path, state(path), [attempt(os.getxattr, path, name) for name in ("system.posix_acl_access", "system.posix_acl_default")]
    os.chmod("dir/new", 0o640)
    yield attempt(os.getxattr, "dir/new", "system.posix_acl_access")


FLAGS_AND_MAPS = (0x80086601, 0x40086602, 0x801C581F, 0x401C5820, 0x80087601, 0xC020660B)  # Flags and projects, generation, FIEMAP.
OTHERS = (0x40049409, 0x4020940D, 0xC0189436, 0x5401, 0x541B, 0x1, 0x2, 0x5452, 0x5421, 0x80081270, 0x100)


def flags_and_maps():
    return _each_ioctl(FLAGS_AND_MAPS)


def ioctls():
    yield from _each_ioctl(OTHERS)
    fd = opened("file")
    os.write(fd, b"12345")
    os.lseek(fd, 2, 0)
    yield attempt(lambda: struct.unpack("i", fcntl.ioctl(fd, 0x541B, b"\0" * 4))), attempt(fcntl.ioctl, fd, 0x1)


def _each_ioctl(commands):
    fd = opened("file")
    for command in commands:
        result = attempt(fcntl.ioctl, fd, command, bytearray(256))
        yield f"{command:x}: {result if isinstance(result, str) else 'done'}"


def mounts():
    os.mkdir("dir")
    yield attempt(call, "umount2", b"dir", 0), attempt(call, "swapon", b"dir", 0)
    yield attempt(call, "mount", b"none", b"missing", b"tmpfs", 0, None), stat.S_ISDIR(os.stat("dir").st_mode)


def groups_and_setgid():
    """Who is not of a file's group cannot give it the bit of the group."""
    made("file")
    os.mkdir("dir")
    if os.getuid() == 0 and not PRIVATE:
        for path in (".", "file", "dir"):
            os.chown(path, 65534, 1234)

    def tried():
        if os.getuid() == 0 and not PRIVATE:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        os.chmod("file", 0o2755)
        os.chmod("dir", 0o2755)
        return [state("file"), state("dir"), attempt(os.chown, "file", -1, 1234), attempt(os.chown, "file", -1, 4321), attempt(os.chown, "file", -1, 65534), state("file")]
    yield in_child(tried)


def without_capabilities():
    """Root without its rights over files is an owner among others."""
    if os.getuid() != 0 or PRIVATE:
        return
    made("file", b"x")
    os.chmod("file", 0o6000)
    made("theirs", b"x")
    os.chown("theirs", 1000, 1000)
    os.chmod("theirs", 0o600)

    def tried():
        header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", 1 << 21, 1 << 21, 0, 0, 0, 0)  # Of all, CAP_SYS_ADMIN alone.
        call("capset", header, data)
        return [attempt(action) for action in (lambda: os.open("file", 0), lambda: os.open("theirs", 0), lambda: os.chmod("theirs", 0o644), lambda: os.chown("file", 1000, -1), lambda: os.utime("theirs"), lambda: os.setxattr("file", "trusted.a", b"b"),
                                              lambda: os.chmod("file", 0o6755), lambda: os.write(os.open("file", 1), b"y"), lambda: state("file"), lambda: os.mknod("device", 0o020600, 1), lambda: os.setxattr("file", "security.capability", b"x" * 20),
                                              lambda: os.listxattr("file"), lambda: os.unlink("theirs"))]
    yield in_child(tried)
