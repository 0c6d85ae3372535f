"""Restores among random states of a tree, with every cache of the kernel warm before: see the script beside this file.

Each state is described when its checkpoint is taken. After a restore the tree must be as described, at the first look; whoever
has a file open or mapped keeps the version he opened; a process keeps its working directory or is told that it is gone.
"""

import errno
import mmap
import os
import random
import shutil
import signal
import stat
import sys

STATES = 6
PATHS = [a + b + c for a in ("one", "two", "three") for b in ("", "/x", "/y") for c in ("", "/f", "/g")]


def change(rng, top):
    """Makes another state of the tree by ordinary operations."""
    for _ in range(rng.randrange(5, 40)):
        path, other = (os.path.join(top, rng.choice(PATHS)) for _ in range(2))
        try:
            match rng.randrange(9):
                case 0 | 1:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(rng.randbytes(rng.choice([0, 10, 5000, 300_000, 2_000_000])))
                case 2:
                    os.makedirs(path, exist_ok=True)
                case 3:
                    os.unlink(path)
                case 4:
                    shutil.rmtree(path)
                case 5:
                    os.rename(path, other)
                case 6:
                    os.link(path, other)
                case 7:
                    os.symlink(rng.choice(PATHS), path)
                case 8:
                    os.chmod(path, rng.choice([0o755, 0o700, 0o777]))
                    os.setxattr(path, "user.state", rng.randbytes(8))
                    os.utime(path, (1, rng.randrange(1 << 31)))
        except OSError:
            pass


def look(path):
    """Everything a program can see of a name."""
    try:
        info = os.lstat(path)
    except OSError as err:
        assert err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP), err
        return "absent"
    seen = [oct(info.st_mode), info.st_mtime_ns, info.st_nlink]
    if stat.S_ISLNK(info.st_mode):
        return [*seen, os.readlink(path)]
    seen.append({name: os.getxattr(path, name) for name in sorted(os.listxattr(path))})
    if stat.S_ISDIR(info.st_mode):
        return [*seen, sorted(os.listdir(path))]
    with open(path, "rb") as file:
        content = file.read()
        if content:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                assert mapped[:] == content, f"{path}: mapped and read differ"
    return [*seen, info.st_size, content]


def look_at_all(top):
    return {path: look(os.path.join(top, path)) for path in PATHS}


def is_itself(path):
    """Says whether no directory on the way is a symbolic link: what is seen through one is somewhere else."""
    return os.path.realpath(os.path.dirname(path)) == os.path.dirname(path)


def numbers(top):
    found = {}
    for path in PATHS:
        if not is_itself(os.path.join(top, path)):
            continue
        try:
            found[path] = os.lstat(os.path.join(top, path)).st_ino
        except OSError:
            pass
    return found


def tell(top, file, text):
    fd = os.open(os.path.join(top, ".memento", file), os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    except OSError as err:
        with open(os.path.join(top, ".memento/error")) as error:
            raise AssertionError(f"{file} {text!r}: {err}: {error.read()}") from err
    finally:
        os.close(fd)


def newest(top):
    with open(os.path.join(top, ".memento/checkpoint")) as file:
        return file.read().strip()


class Resident:
    """A process that stands in a directory, as a shell does, and says what it finds."""

    def __init__(self, directory):
        self.directory = directory
        ask_read, self.ask = os.pipe()
        self.answer, answer_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ask)
            os.chdir(directory)
            os.write(answer_write, b"!")
            os.read(ask_read, 1)
            os.write(answer_write, "\n".join(self.tried()).encode())
            os._exit(0)
        os.close(ask_read)
        os.close(answer_write)
        assert os.read(self.answer, 1) == b"!"  # It stands there.

    @staticmethod
    def tried():
        for action in (os.getcwd, lambda: os.stat("."), lambda: os.listdir("."), lambda: os.stat("no such name")):
            try:
                yield str(action())
            except OSError as err:
                yield errno.errorcode[err.errno]

    def end(self):
        """Returns what it found: its path, its description, its listing, and a name that is not there."""
        os.write(self.ask, b"x")
        os.close(self.ask)
        with os.fdopen(self.answer) as answers:
            found = answers.read().split("\n")
        os.waitpid(self.pid, 0)
        assert all(line not in errno.errorcode.values() or line == "ENOENT" for line in found), (self.directory, found)
        assert found[3] == "ENOENT", found
        return found


class Held:
    """A file that is open and mapped."""

    def __init__(self, path):
        self.path, self.fd = path, os.open(path, os.O_RDONLY)
        self.content = os.pread(self.fd, 1 << 24, 0)
        self.mapped = mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ) if self.content else b""

    def end(self):
        assert os.pread(self.fd, 1 << 24, 0) == self.content, f"{self.path}: an open file changed"
        assert os.fstat(self.fd).st_size == len(self.content)
        assert self.mapped[:] == self.content, f"{self.path}: a mapped file changed"
        os.close(self.fd)


def differs(expected, found):
    for path in PATHS:
        if expected[path] != found[path]:
            shorten = lambda seen: [part if not isinstance(part, bytes) else part[:20] for part in seen] if isinstance(seen, list) else seen
            return f"{path}: expected {shorten(expected[path])}, found {shorten(found[path])}"
    return None


def main():
    rounds, top, company = int(sys.argv[1]), os.path.realpath(sys.argv[2]), sys.argv[3]
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"coherence {company}: seed {seed}", flush=True)
    signal.alarm(rounds * 20 + 60)  # A request that hangs is a failure.
    rng = random.Random(seed)
    states = []
    for _ in range(STATES):
        change(rng, top)
        tell(top, "checkpoint", "state")
        states.append((newest(top), look_at_all(top)))
    now = states[-1]
    kept = 0
    for at in range(rounds):
        found = look_at_all(top)  # Every cache is warm, that of names that are not there too.
        assert differs(now[1], found) is None, f"round {at}, before: {differs(now[1], found)}"
        before = numbers(top)
        full = [os.path.join(top, path) for path in PATHS]
        held = [Held(path) for path in full if os.path.isfile(path) and not os.path.islink(path)]
        residents = [Resident(path) for path in full if is_itself(path) and os.path.isdir(path) and not os.path.islink(path)]
        previous, now = now, rng.choice(states)
        how = rng.choice(["restore", "restore", "undo", "checkpoint"])
        if how == "checkpoint":
            now = previous
            tell(top, "checkpoint", "nothing new here")
        else:
            tell(top, "restore", now[0])
            if how == "undo" and company == "alone" and previous is not now:
                assert differs(now[1], look_at_all(top)) is None
                tell(top, "undo", "x")
                now = previous
        found = look_at_all(top)
        assert differs(now[1], found) is None, f"round {at}, {how}: {differs(now[1], found)}"
        after = numbers(top)
        for path in before.keys() & after.keys():
            same_place = all(now[1][above] == previous[1][above] for above in (path, *parents(path)))
            if same_place and how != "undo":
                assert before[path] == after[path], f"round {at}: {path} has another number"
                kept += 1
        for file in held:
            file.end()
        for resident in residents:
            path = os.path.relpath(resident.directory, top)
            answers = resident.end()
            if before.get(path) == after.get(path):
                assert answers[0] == resident.directory, f"round {at}: {answers} in {resident.directory}"
        if rng.random() < 0.2 and company == "alone":
            change(rng, top)
            tell(top, "checkpoint", "another state")
            now = (newest(top), look_at_all(top))
            states[rng.randrange(STATES)] = now
    print(f"coherence {company}: {rounds} rounds, {kept} numbers kept")


def parents(path):
    while path := os.path.dirname(path):
        yield path


main()
