"""What the questions share: a process of their own, system calls that Python lacks, and answers that can be compared."""

import ctypes
import errno
import os
import signal
import sys
import time
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x200, 0x400, 0x1000
USERS = ["root", "stranger"]
STRANGER = 65534
PRIVATE = bool(os.environ.get("PRIVATE"))  # Others are not let into a private mount.
SETTLE_SECS = 0.012  # More than a tick of the clock that times are taken from.


def answer(question, place, user, secs_max):
    """Runs a question in a process whose working directory is `place`; returns what it says."""
    if user == "stranger":
        os.chown(place, STRANGER, STRANGER)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setpgid(0, 0)
        signal.alarm(secs_max)
        os.chdir(place)
        os.umask(0o022)
        if user == "stranger":
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
        os.write(writer, told(question).encode(errors="backslashreplace"))
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        text = answers.read().decode()
    status = os.waitpid(child, 0)[1]
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return text if status == 0 else f"{text}\nended with {status}"


def told(question):
    try:
        return "\n".join(str(line) for line in question() or [])
    except BaseException as err:
        return f"{name_of(err)} in\n{traceback.format_exc()}"


def name_of(err):
    if isinstance(err, OSError) and err.errno is not None:
        return errno.errorcode.get(err.errno, str(err.errno))
    return f"{type(err).__name__} {err}"


def attempt(action, *arguments, **named):
    """What an action returns, or the name of its errno."""
    try:
        return action(*arguments, **named)
    except (OSError, ValueError) as err:
        return name_of(err)


def call(name, *arguments):
    """A function of the C library that returns -1 and errno."""
    ctypes.set_errno(0)
    function = getattr(LIBC, name)
    function.restype = ctypes.c_long
    result = function(*[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    result = ctypes.c_int(result).value if result > 1 << 31 else result
    if result == -1 or result == 0xFFFFFFFF:
        raise OSError(ctypes.get_errno(), name)
    return result


def system(number, *arguments):
    """A system call by its number on x86_64."""
    return call("syscall", number, *arguments)


def made(path, content=b"", mode=0o644):
    """A file of some content."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    try:
        written = 0
        while written < len(content):
            written += os.write(fd, content[written:])
    finally:
        os.close(fd)
    return path


def opened(path, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
    return os.open(path, flags, mode)


def whole(path):
    with open(path, "rb") as file:
        return file.read()


def state(path):
    """What stat(2) says that two file systems must agree on."""
    try:
        info = os.lstat(path) if not isinstance(path, int) else os.fstat(path)
    except OSError as err:
        return name_of(err)
    size = info.st_size if info.st_mode & 0o170000 != 0o040000 else "-"
    return f"{info.st_mode:o} links {info.st_nlink} {info.st_uid}:{info.st_gid} size {size}"


def moved(action, *paths, atime=False):
    """Performs an action; says what it gave and which times of the paths it moved."""
    time.sleep(SETTLE_SECS)
    before = [_times(path) for path in paths]
    result = attempt(action)
    after = [_times(path) for path in paths]
    words = []
    for path, old, new in zip(paths, before, after):
        if old is None or new is None:
            words.append(f"{path}: {'was not' if old is None else 'is gone'}")
            continue
        if old["number"] != new["number"]:
            words.append(f"{path}: is another")
            continue
        names = ["mtime", "ctime"] + ["atime"] * atime
        words.append(f"{path}: {' '.join(name for name in names if old[name] != new[name]) or 'nothing'}")
    return f"{result}; {', '.join(words)}"


def _times(path):
    try:
        info = os.lstat(path) if not isinstance(path, int) else os.fstat(path)
    except OSError:
        return None
    return {"number": info.st_ino, "mtime": info.st_mtime_ns, "ctime": info.st_ctime_ns, "atime": info.st_atime_ns}


def in_child(action):
    """Runs an action in a process of its own; returns its answer or the signal that ended it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, str(attempt(action)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        text = answers.read().decode()
    status = os.waitpid(child, 0)[1]
    return f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else text
