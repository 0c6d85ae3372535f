"""A store and its mount, whose daemon can be killed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
TARGET = os.environ.get("CARGO_TARGET_DIR", PROJECT + "/target")
PROGRAM = os.environ.get("MEMENTOFS", TARGET + "/release/mementofs")
# For the mount, as on its command line: `--io passthrough -o allow_other`.
OPTIONS = shlex.split(os.environ.get("MEMENTOFS_MOUNT_OPTIONS", ""))
PATIENCE_SECS = 60


def run(*command, check=True):
    """Runs a command; returns it done, with all it said in `stdout`."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if check and done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return done


def need_program():
    """Ends the campaign when the program is not built."""
    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"{PROGRAM} is not there: cargo build --release, or name it in MEMENTOFS")


class Mount:
    """A store below `base`, mounted below `base` too."""

    def __init__(self, base, store=None, top=None):
        self.base = base
        self.store, self.top = store or base + "/store", top or base + "/mnt"
        self.log_path = base + "/log"
        self.daemon = None
        self.environment = {}  # What the daemon gets besides.
        os.makedirs(self.top, exist_ok=True)

    def start(self):
        """Mounts, and returns the seconds until it served. Raises RuntimeError when it does not."""
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        begun = time.monotonic()
        command = [PROGRAM, "mount", "-f", *OPTIONS, self.store, self.top]
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                       env=os.environ | self.environment)
        os.close(log)
        while not self.is_served():
            if self.daemon.poll() is not None:
                self.daemon = None
                raise RuntimeError(f"the daemon ended: {self.log()[-2000:]}")
            if time.monotonic() - begun > PATIENCE_SECS:
                raise RuntimeError("the mount does not serve")
            time.sleep(0.001)
        return time.monotonic() - begun

    def is_served(self):
        """Says whether a living daemon answers. The bare directory and a dead mount do not."""
        try:
            return os.stat(self.top).st_dev != os.stat(self.base).st_dev and os.path.lexists(self.top + "/.memento/README")
        except OSError:
            return False

    def is_alive(self):
        """Says whether the daemon lives."""
        return self.daemon is not None and self.daemon.poll() is None

    def kill(self):
        """Ends the daemon as a crash does."""
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def stop(self):
        """Ends the daemon in good order; returns its exit status."""
        daemon, self.daemon = self.daemon, None
        daemon.send_signal(signal.SIGTERM)
        try:
            return daemon.wait(PATIENCE_SECS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            return -9

    def end(self):
        """Ends the daemon, whatever state it is in, and frees the mount point."""
        self.kill()
        while run("umount", "-l", self.top, check=False).returncode == 0:
            pass

    def log(self):
        """Returns what the daemon said."""
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def tell(self, file, text):
        """Writes a command into a control file, in one write(2)."""
        descriptor = os.open(f"{self.top}/.memento/{file}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def says(self, file):
        """Reads a control file."""
        with open(f"{self.top}/.memento/{file}") as control:
            return control.read()

    def request(self, verb, **details):
        """Runs a command and returns its reply. Raises OSError with the command's errno."""
        path = f"{self.top}/.memento/requests/campaign-{os.getpid()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps({"do": verb, **details}).encode())
        finally:
            os.close(descriptor)
        with open(path) as reply:
            return json.load(reply)

    def checkpoint_ids(self):
        """Returns the ids of all checkpoints of the store."""
        return {name for name in os.listdir(self.top + "/.memento/checkpoints") if len(name) == 64}

    def names(self):
        """Returns the names of checkpoints and the ids they lead to."""
        found = {}
        for line in self.says("log").splitlines():
            identity, _, name = line.split(" ")[:3]
            if name != "-":
                found[name] = identity
        return found


def fsck(store, read_data=False):
    """Checks a store that is not mounted. Returns what is wrong."""
    done = run(PROGRAM, "fsck", *(["--read-data"] if read_data else []), store, check=False)
    return [] if done.returncode == 0 else [f"fsck: {done.stdout.strip()}"]
