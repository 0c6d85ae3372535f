"""A directory tree as a plain model: paths, files with several names, bytes, modes, extended attributes, times."""

import hashlib
import os
import stat

XATTR = "user.campaign"


class Node:
    """A file of any kind. It never changes: a change makes another one, so that copies of a tree are cheap and stay."""

    __slots__ = ("kind", "mode", "data", "xattr", "mtime", "_digest")

    def __init__(self, kind, mode, data=b"", xattr=None, mtime=None):
        self.kind, self.mode, self.data, self.xattr, self.mtime = kind, mode, data, xattr, mtime
        self._digest = None

    def but(self, **changes):
        """Returns the same node with some fields different."""
        fields = {"kind": self.kind, "mode": self.mode, "data": self.data, "xattr": self.xattr, "mtime": self.mtime}
        fields.update(changes)
        return Node(**fields)

    def digest(self):
        """Returns length and hash of the bytes, or the target of a symbolic link."""
        if self._digest is None:
            self._digest = (len(self.data), hashlib.sha256(self.data).hexdigest()[:24])
        return self._digest


class Tree:
    """Which file each path leads to, and the files."""

    def __init__(self):
        self.paths, self.nodes, self.next = {}, {}, 0

    def copy(self):
        other = Tree()
        other.paths, other.nodes, other.next = dict(self.paths), dict(self.nodes), self.next
        return other

    def node(self, path):
        return self.nodes[self.paths[path]]

    def of_kind(self, *kinds):
        """Returns the paths of files of these kinds."""
        return [path for path, number in self.paths.items() if self.nodes[number].kind in kinds]

    def is_empty(self, directory):
        return not any(path.startswith(directory + "/") for path in self.paths)

    def picture(self):
        """Returns, for each path, all that can be seen there: the first name of the same file, kind, mode, bytes, attribute, time."""
        first, count = {}, {}
        for path in sorted(self.paths):
            number = self.paths[path]
            first.setdefault(number, path)
            count[number] = count.get(number, 0) + 1
        found = {}
        for path, number in self.paths.items():
            node = self.nodes[number]
            names = (first[number], count[number]) if node.kind != "directory" else None
            found[path] = (node.kind, node.mode, node.digest(), node.xattr, names, node.mtime)
        return found

    # What operations do; `apply` is the way in.

    def apply(self, operation):
        """Does what an operation of `kit.operations` does."""
        getattr(self, "do_" + operation[0])(*operation[1:])

    def _add(self, path, node):
        self.next += 1
        self.paths[path] = self.next
        self.nodes[self.next] = node

    def _change(self, path, **changes):
        number = self.paths[path]
        self.nodes[number] = self.nodes[number].but(**changes)

    def _remove(self, path):
        number = self.paths.pop(path)
        if self.nodes[number].kind == "directory" or number not in self.paths.values():
            del self.nodes[number]

    def do_mkdir(self, path, mode):
        self._add(path, Node("directory", mode))

    def do_create(self, path, mode):
        self._add(path, Node("file", mode))

    def do_fifo(self, path, mode):
        self._add(path, Node("fifo", mode))

    def do_symlink(self, target, path):
        self._add(path, Node("symlink", 0o777, target.encode()))

    def do_write(self, path, offset, data):
        old = self.node(path).data
        padded = old if len(old) >= offset else old + bytes(offset - len(old))
        self._change(path, data=padded[:offset] + data + padded[offset + len(data):], mtime=None)

    do_map = do_write

    def do_truncate(self, path, size):
        old = self.node(path).data
        self._change(path, data=old[:size] + bytes(max(0, size - len(old))), mtime=None)

    def do_punch(self, path, offset, length):
        old = self.node(path).data
        end = min(offset + length, len(old))
        if end > offset:
            self._change(path, data=old[:offset] + bytes(end - offset) + old[end:], mtime=None)
        else:
            self._change(path, mtime=None)

    def do_sync(self, path):
        pass

    def do_rename(self, old, new):
        if self.paths.get(new) == self.paths[old]:
            return  # rename(2): two names of one file stay.
        if new in self.paths:
            self._remove(new)
        for path in [path for path in self.paths if path == old or path.startswith(old + "/")]:
            self.paths[new + path[len(old):]] = self.paths.pop(path)

    def do_exchange(self, one, other):
        aside = "\0"
        self.do_rename(one, aside)
        self.do_rename(other, one)
        self.do_rename(aside, other)

    def do_link(self, path, new):
        self.paths[new] = self.paths[path]

    def do_unlink(self, path):
        self._remove(path)

    do_rmdir = do_unlink

    def do_orphan(self, path, data):
        self._remove(path)

    def do_chmod(self, path, mode):
        self._change(path, mode=mode)

    def do_setxattr(self, path, value):
        self._change(path, xattr=value)

    def do_removexattr(self, path):
        self._change(path, xattr=None)

    def do_utime(self, path, nanos):
        self._change(path, mtime=nanos)


def torn(before, operation, parts=False):
    """Returns what finds the tree after a write that was cut short: a function of the tree that is there.

    The daemon may die in the middle of a write over bytes of a large file that are new themselves: each byte is then the old or the
    new one. The function returns None where that is not what is there. With `parts` it may end anywhere in what is written.
    """
    def after(found):
        if operation[0] not in ("write", "map"):
            return None
        path = operation[1]
        if path not in found.paths or path not in before.paths:
            return None
        whole, tree = before.copy(), before.copy()
        whole.apply(operation)
        data, old, new = found.node(path).data, before.node(path).data, whole.node(path).data
        if len(data) not in (len(old), len(new)) and not (parts and len(old) < len(data) < len(new)):
            return None
        old, new = old.ljust(len(data), b"\0")[:len(data)], new[:len(data)]
        if any(byte not in either for byte, *either in zip(data, old, new)):
            return None
        tree._change(path, data=data, mtime=None)
        return tree

    return after


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}


def scan(top):
    """Returns the tree that lies below `top`, as files of the host show it."""
    tree, numbers = Tree(), {}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for name in sorted(os.listdir(top + "/" + directory)):
            path = f"{directory}/{name}" if directory else name
            full = f"{top}/{path}"
            status = os.lstat(full)
            kind = KINDS[stat.S_IFMT(status.st_mode)]
            if kind == "directory":
                waiting.append(path)
            elif status.st_ino in numbers:
                tree.paths[path] = numbers[status.st_ino]
                continue
            data = b""
            if kind == "file":
                with open(full, "rb") as file:
                    data = file.read()
                if len(data) != status.st_size:
                    raise ValueError(f"{path}: {len(data)} bytes read, {status.st_size} stated")
            elif kind == "symlink":
                data = os.readlink(full).encode()
            xattr = None
            if XATTR in os.listxattr(full, follow_symlinks=False):
                xattr = os.getxattr(full, XATTR, follow_symlinks=False).decode()
            tree._add(path, Node(kind, stat.S_IMODE(status.st_mode), data, xattr, status.st_mtime_ns))
            numbers[status.st_ino] = tree.next
            if kind != "directory":
                tree.paths[path] = tree.next
    return tree


def differences(expected, found):
    """Compares two pictures; a time that is not known is any time. Returns a sentence for each path that differs."""
    wrong = []
    for path in sorted(expected.keys() | found.keys()):
        one, other = expected.get(path), found.get(path)
        if one == other:
            continue
        if one is None or other is None:
            wrong.append(f"{path}: {'not expected' if one is None else 'missing'}: {one or other}")
        elif one[:5] != other[:5] or one[5] not in (None, other[5]):
            wrong.append(f"{path}: expected {one}, found {other}")
    return wrong
