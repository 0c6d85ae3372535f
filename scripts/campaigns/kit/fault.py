"""Stages a fault in the daemon: the k-th call of a kind on a file of the store kills it, fails, or is torn."""

import mmap
import os
import shutil
import struct
import subprocess

CALLS = ["write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "link", "ftruncate", "create", "fallocate",
         "read", "pread64", "mkdir", "open"]
ACTIONS = ["count", "kill-before", "kill-after", "fail", "torn"]
HEADER = struct.Struct("<IIqIIII")


class Fault:
    """The page shared with the library in the daemon."""

    def __init__(self, base):
        self.path, self.preload = base + "/fault-page", base + "/fault.so"
        with open(self.path, "wb") as file:
            file.write(bytes(4096))
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)

    def build(self, library=None):
        """Compiles the library, or takes one that is compiled."""
        if library:
            self.preload = library
            return self
        source = os.path.dirname(os.path.abspath(__file__)) + "/fault.c"
        compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "cc")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", self.preload, source, "-ldl"], check=True)
        return self

    def environment(self, store):
        """Returns what the daemon needs in its environment."""
        return {"LD_PRELOAD": self.preload, "FAULT_PAGE": self.path, "FAULT_STORE": os.path.realpath(store)}

    def arm(self, calls, at, action, error=0, sticky=False):
        """Lets the `at`-th of these calls from now on meet the fault."""
        mask = sum(1 << CALLS.index(call) for call in calls)
        self.page[:256] = bytes(256)
        self.page[:HEADER.size] = HEADER.pack(0, mask, at, ACTIONS.index(action), error, int(sticky), 0)
        self.page[:4] = struct.pack("<I", 1)

    def disarm(self):
        self.page[:4] = bytes(4)

    def counted(self):
        """Returns how many calls were counted."""
        return struct.unpack_from("<q", self.page, HEADER.size)[0]

    def fired(self):
        """Returns how many calls met the fault."""
        return struct.unpack_from("<q", self.page, HEADER.size + 8)[0]

    def each(self):
        """Returns how often each call was counted."""
        return dict(zip(CALLS, struct.unpack_from(f"<{len(CALLS)}q", self.page, HEADER.size + 16)))
