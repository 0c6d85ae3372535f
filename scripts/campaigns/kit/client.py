"""A process that works in a directory of its own and says, outside the mount, what it began and what returned."""

import os
import pickle
import random
import struct
import time

from .mount import OPTIONS
from .operations import Doer, Draw, first_part
from .tree import differences, scan, torn

# A replay of a history begins at the last of these many operations.
SNAPSHOT_EVERY = 50
RETURNED = b"\x00\x00\x00\x00"
# Whether the kernel writes files by itself.
HANDED = "passthrough" in OPTIONS


class Client:
    """A working child process."""

    def __init__(self, top, tree, log_path, seed, stop):
        """Starts work below `top`, which holds `tree`, until the first byte of `stop` (shared memory) is set."""
        self.tree, self.log_path = tree, log_path
        self.log = os.open(log_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.umask(0)
                self._work(top, tree.copy(), random.Random(seed), stop)
                code = 0
            except Exception as err:
                self._say(("failed", repr(err), time.monotonic()))
            finally:
                os._exit(code)

    def _work(self, top, tree, rng, stop):
        doer, draw = Doer(top), Draw(rng, tree)
        while not stop[0]:
            operation = draw.operation()
            record = pickle.dumps(operation)
            os.write(self.log, struct.pack("<I", len(record)) + record)
            try:
                doer.perform(operation)
            except OSError as err:
                self._say(("error", err.errno, time.monotonic()))
                return
            os.write(self.log, RETURNED)
            tree.apply(operation)
            if rng.random() < 0.01:
                path = draw.one("file")
                if path and not self._reads_back(doer, tree, path):
                    return

    def _reads_back(self, doer, tree, path):
        try:
            with open(doer.at(path), "rb") as file:
                good = file.read() == tree.node(path).data
        except OSError as err:
            self._say(("error", err.errno, time.monotonic()))
            return False
        if not good:
            self._say(("stale", path, time.monotonic()))
        return good

    def _say(self, record):
        record = pickle.dumps(record)
        os.write(self.log, struct.pack("<I", len(record)) + record)

    def position(self):
        """Returns how long the log is: what was begun and what returned up to now lies before."""
        return os.fstat(self.log).st_size

    def join(self):
        """Waits for the end of the process and reads its log."""
        _, self.status = os.waitpid(self.pid, 0)
        with open(self.log_path, "rb") as file:
            return History(self.tree, file.read())

    def close(self):
        os.close(self.log)


class History:
    """What a client did, as its log says."""

    def __init__(self, base, log):
        self.base, self.known = base, {0: base}
        self.operations = []  # Begun, in order.
        self.begun_at, self.returned_at = [], []  # Ends of the records in the log.
        self.trouble = None
        at = 0
        while at + 4 <= len(log):
            (length,) = struct.unpack_from("<I", log, at)
            at += 4 + length
            if length == 0:
                self.returned_at.append(at)
                continue
            record = pickle.loads(log[at - length:at])
            if record[0] in ("error", "stale", "failed"):
                self.trouble = record
            else:
                self.operations.append(record)
                self.begun_at.append(at)

    def returned(self, position=None):
        """Returns how many operations had returned when the log was `position` long."""
        return len(self.returned_at) if position is None else sum(end <= position for end in self.returned_at)

    def begun(self, position=None):
        """Returns how many operations had begun when the log was `position` long."""
        return len(self.begun_at) if position is None else sum(end <= position for end in self.begun_at)

    def after(self, count):
        """Returns the tree after the first `count` operations."""
        start = max(known for known in self.known if known <= count)
        tree = self.known[start].copy()
        for number in range(start, count):
            if number % SNAPSHOT_EVERY == 0:
                self.known[number] = tree.copy()
            tree.apply(self.operations[number])
        return tree

    def states(self, least, most):
        """Generates the trees that may be there when `least` operations returned and `most` began, with the number done.

        A tree changes when the next is asked for.
        """
        tree = self.after(least)
        yield least, tree
        for count in range(least, most):
            part = first_part(self.operations[count])
            if part:
                partial = tree.copy()
                partial.apply(part)
                yield count, partial
            tree.apply(self.operations[count])
            yield count + 1, tree

    def cut_short(self):
        """Returns what finds the tree after the operation that was under way at the end, if there is one: see `tree.torn`."""
        done = self.returned()
        return [torn(self.after(done), self.operations[done])] if self.begun() > done else []

    def find(self, found, least, most):
        """Looks for the prefix of `least` to `most` operations after which the tree is `found`.

        Returns the tree, or None and what differs in the nearest case.
        """
        picture = found.picture()
        for count, tree in self.states(least, most):
            if self._may_be(tree, found, count) and not differences(tree.picture(), picture):
                return tree.copy(), []
        # The kernel makes a file that it has in hand longer while it writes, and a checkpoint may look at it then.
        for count in range(least, most) if HANDED else ():
            part = torn(self.after(count), self.operations[count], parts=True)(found)
            if part and not differences(part.picture(), picture):
                return part, []
        nearest = None
        for count, tree in self.states(least, most):
            wrong = differences(tree.picture(), picture)
            if nearest is None or len(wrong) < len(nearest):
                nearest = [f"after {count} of {least}..{most} operations: {wrong[0]} (and {len(wrong) - 1} more)", *wrong[1:]]
        return None, nearest[:1]

    def _may_be(self, tree, found, count):
        """Says quickly whether two trees may be the same: what the last operation did must be there."""
        if tree.paths.keys() != found.paths.keys():
            return False
        paths = self.operations[count - 1][1:3] if count else ()
        return all(tree.node(path).data == found.node(path).data for path in paths if path in tree.paths)


def scanned(top):
    """Scans a tree; returns it, or None and why it could not be read."""
    try:
        return scan(top), []
    except (OSError, ValueError) as err:
        return None, [f"{top}: {err}"]
