"""Watches, handles, paths without access, pipes and sockets in the file system, and many programs at once."""

import ctypes
import fcntl
import os
import select
import socket
import stat
import struct

from ask import AT_FDCWD, attempt, call, in_child, made, opened, state, whole

LIBC = ctypes.CDLL(None)


def watches():
    fd = LIBC.inotify_init1(os.O_NONBLOCK)
    os.mkdir("dir")
    made("file", b"x")
    for path in (b".", b"dir", b"file"):
        yield LIBC.inotify_add_watch(fd, path, 0xFFF) > 0
    for action in (lambda: made("new", b"y"), lambda: os.chmod("file", 0o600), lambda: os.rename("new", "dir/new"), lambda: whole("dir/new"), lambda: os.unlink("dir/new"), lambda: os.mkdir("dir/sub"), lambda: os.link("file", "dir/link"),
                   lambda: os.truncate("file", 0), lambda: os.setxattr("file", "user.a", b"b"), lambda: os.symlink("x", "s"), lambda: os.rename("file", "other"), lambda: os.unlink("other"), lambda: os.unlink("dir/link"), lambda: os.rmdir("dir/sub"),
                   lambda: os.rmdir("dir"), lambda: os.utime("."), lambda: os.listdir(".") and 0, lambda: call("renameat2", AT_FDCWD, b"s", AT_FDCWD, b"t", 1), lambda: opened("t2"), lambda: os.posix_fallocate(opened("t2"), 0, 10)):
        attempt(action)
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            data = b""
        events = []
        while data:
            watch, mask, cookie, length = struct.unpack("iIII", data[:16])
            events.append(f"{watch}:{mask:x}:{data[16:16 + length].rstrip(chr(0).encode()).decode()}:{'c' if cookie else ''}")
            data = data[16 + length :]
        yield " ".join(events)


def fanotify():
    if os.getuid() != 0:
        return [attempt(call, "fanotify_init", 0, 0)]
    fd = LIBC.fanotify_init(2, 0)
    lines = [LIBC.fanotify_mark(fd, 1, ctypes.c_uint64(0x8000003B), AT_FDCWD, b"."), ]
    made("file", b"x")
    whole("file")
    data = os.read(fd, 65536)
    while data:
        length, version, _, _, mask, event, _ = struct.unpack("IBBHQii", data[:24])
        lines.append(f"{mask:x}")
        os.close(event)
        data = data[length:]
    for flags in (0x200, 0x400, 0x600, 0xE00):
        for mask in (0x100, 0xFC0, 0x40000400):
            group = LIBC.fanotify_init(flags, 0)
            lines.append(f"{flags:x} {mask:x} {attempt(call, 'fanotify_mark', group, 1, ctypes.c_uint64(mask), AT_FDCWD, b'.')}")
            os.close(group)
    return lines


def file_handles():
    made("file", b"by handle")
    os.mkdir("dir")
    os.symlink("file", "link")
    mount = ctypes.c_int()
    small = ctypes.create_string_buffer(struct.pack("Ii", 0, 0), 8)
    yield attempt(call, "name_to_handle_at", AT_FDCWD, b"file", small, ctypes.byref(mount), 0), struct.unpack("I", small.raw[:4])[0] > 0
    for path, flags in ((b"file", 0), (b"dir", 0), (b"link", 0), (b"link", 0x400), (b"missing", 0), (b"", 0x1000), (b"file", 0x200), (b"file", 8)):
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
        found = attempt(call, "name_to_handle_at", AT_FDCWD, path, handle, ctypes.byref(mount), flags)
        yield path, flags, found
        if found != 0:
            continue
        fd = attempt(call, "open_by_handle_at", AT_FDCWD, handle, os.O_RDONLY)
        yield fd if isinstance(fd, str) else state(fd)
        directory = os.open(".", 0)
        fd = attempt(call, "open_by_handle_at", directory, handle, os.O_RDONLY)
        yield fd if isinstance(fd, str) else state(fd)
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    call("name_to_handle_at", AT_FDCWD, b"file", handle, ctypes.byref(mount), 0)
    os.unlink("file")
    yield attempt(call, "open_by_handle_at", directory, handle, os.O_RDONLY)


def paths_without_access():
    made("file", b"content", 0o644)
    os.mkdir("dir")
    made("dir/inside", b"in")
    fd = os.open("file", os.O_PATH)
    directory = os.open("dir", os.O_PATH)
    yield [attempt(action) for action in (lambda: os.read(fd, 1), lambda: os.write(fd, b"x"), lambda: state(fd), lambda: os.fchdir(fd), lambda: whole(f"/proc/self/fd/{fd}"), lambda: fcntl.fcntl(fd, 3), lambda: os.fchown(fd, -1, -1), lambda: os.close(os.dup(fd)),
                                         lambda: os.open("inside", 0, dir_fd=directory) > 0, lambda: os.open("x", 0, dir_fd=fd), lambda: os.listdir(directory), lambda: os.fchdir(directory), lambda: os.fstatvfs(fd).f_namemax)]
    os.chdir("..")
    yield state(os.open("probe/file", os.O_PATH | os.O_NOFOLLOW))


def fifos_and_sockets():
    os.mkfifo("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    yield attempt(os.read, reader, 1), attempt(os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK) != "ENXIO"
    writer = os.open("fifo", os.O_WRONLY)
    yield os.write(writer, b"through"), os.read(reader, 10), state("fifo"), select.select([reader], [writer], [], 0)[1] == [writer]
    os.close(writer)
    os.close(reader)
    os.mkfifo("other")
    yield attempt(os.open, "other", os.O_WRONLY | os.O_NONBLOCK), attempt(os.truncate, "fifo", 0), attempt(os.open, "fifo", os.O_CREAT | os.O_EXCL)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    yield state("socket"), attempt(os.open, "socket", 0), attempt(server.bind, "socket2")
    client = socket.socket(socket.AF_UNIX)
    yield attempt(client.connect, "socket")
    server.listen()
    yield attempt(client.connect, "socket"), attempt(socket.socket(socket.AF_UNIX).connect, "missing"), attempt(socket.socket(socket.AF_UNIX).bind, "socket")
    accepted, _ = server.accept()
    client.send(b"hello")
    yield accepted.recv(10)
    os.rename("socket", "moved")
    yield attempt(socket.socket(socket.AF_UNIX).connect, "moved"), attempt(socket.socket(socket.AF_UNIX).connect, "socket")
    made("file")
    yield attempt(socket.socket(socket.AF_UNIX).connect, "file")


def regular_files_in_epoll():
    fd = opened("file")
    yield attempt(lambda: select.epoll().register(fd))


def select_and_poll():
    fd = opened("file")
    yield select.select([fd], [fd], [], 0) == ([fd], [fd], [])
    poll = select.poll()
    poll.register(fd, 0x1F)
    yield [mask for _, mask in poll.poll(0)]


def temporary_files():
    for flags in (os.O_TMPFILE | os.O_RDWR, os.O_TMPFILE | os.O_RDONLY, os.O_TMPFILE | os.O_RDWR | os.O_EXCL):
        fd = attempt(os.open, ".", flags, 0o640)
        yield fd if isinstance(fd, str) else state(fd)
    yield attempt(os.open, "file", os.O_TMPFILE | os.O_RDWR), attempt(os.open, "missing", os.O_TMPFILE | os.O_RDWR)


def memory_of_writers():
    """Twenty processes make, write, read, rename and remove in one directory."""
    children = []
    for who in range(20):
        child = os.fork()
        if child == 0:
            try:
                for at in range(30):
                    path = made(f"{who}-{at}", b"%d" % at * 100)
                    os.rename(path, f"shared{at % 5}")
                    attempt(whole, f"shared{at % 5}")
                    attempt(os.link, f"shared{at % 5}", f"{who}-link")
                    attempt(os.unlink, f"{who}-link")
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    yield [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], sorted(os.listdir("."))
    yield [state(f"shared{at}") for at in range(5)], stat.S_ISDIR(os.stat(".").st_mode)


def exclusive_creation():
    """Of many who create one name exclusively one succeeds."""
    def child():
        won = 0
        for at in range(200):
            try:
                os.close(os.open(f"once{at}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                won += 1
            except FileExistsError:
                pass
        return won
    readers = []
    for _ in range(4):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, b"%d" % child())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    yield sum(int(os.read(reader, 10)) for reader in readers), len(os.listdir("."))


def descriptors_and_directories():
    os.mkdir("a")
    made("a/file", b"x")
    fd = os.open("a", os.O_RDONLY)
    os.rename("a", "b")
    yield os.stat("file", dir_fd=fd).st_size, os.listdir(fd), os.readlink(f"/proc/self/fd/{fd}").endswith("/b")
    os.mkdir("a")
    os.rename("b/file", "a/file")
    yield os.listdir(fd), attempt(os.stat, "file", dir_fd=fd), attempt(os.open, "new", os.O_CREAT, dir_fd=fd) != ""
    yield os.listdir("b"), in_child(lambda: (os.fchdir(fd), os.getcwd().endswith("/b"))[1]), attempt(os.unlink, "new", dir_fd=fd), attempt(os.rmdir, "b"), attempt(os.mkdir, "x", dir_fd=fd)
