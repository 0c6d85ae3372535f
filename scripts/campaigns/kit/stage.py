"""A scenario of operations and commands under a fault: keeps what returned, and looks whether it is kept."""

import errno

from .client import scanned
from .operations import Doer
from .tree import Tree, differences


COMMANDS = ["checkpoint", "restore", "undo", "delete", "gc"]


class Stage:
    """What a scenario did and what that promises."""

    def __init__(self, mount):
        self.mount, self.doer = mount, Doer(mount.top)
        self.tree = Tree()
        self.maybe = []  # Trees that may be there instead after the daemon died: the operation in flight happened.
        self.checkpoints = {}  # Id to picture.
        self.deleted = set()
        self.errors = []  # Of operations that failed.
        self.dead = False
        self.undo = None
        self.quiet = False  # After an error no command follows: none that would write over what the failed one left.

    def do(self, *operation):
        """Does an operation when the tree allows it. Returns whether it was done."""
        if self.dead:
            return False
        after = self.tree.copy()
        try:
            after.apply(operation)
        except KeyError:
            return False  # What it needs was not made.
        return self.attempt(operation[0], lambda: self.perform(operation), after)[0]

    def perform(self, operation):
        try:
            self.doer.perform(operation)
        except OSError as err:
            written = getattr(err, "written", 0)
            if written:  # It was more than one request, and the first ones were done.
                self.tree = self.tree.copy()
                self.tree.apply((*operation[:3], operation[3][:written]))
            raise

    def attempt(self, what, work, after):
        """Does something that leads to the tree `after`. Returns whether it was done, and what it gave."""
        if self.dead or self.quiet and self.errors and what in COMMANDS:
            return False, None
        self.maybe = [after]
        try:
            gave = work()
        except OSError as err:
            self.errors.append((what, err.errno))
            # A dying daemon still counts as alive for a moment, but its mount does not answer any more.
            self.dead = err.errno in (errno.ENOTCONN, errno.ECONNABORTED) or not self.mount.is_served()
            if not self.dead:
                self.maybe = []  # A failed command changes nothing.
            return False, None
        self.tree, self.maybe = after, []
        return True, gave

    def checkpoint(self, **details):
        """Takes a checkpoint; returns its id or None."""
        done, reply = self.attempt("checkpoint", lambda: self.mount.request("checkpoint", **details), self.tree)
        if done:
            self.checkpoints[reply["id"]] = self.tree.picture()
        return reply["id"] if done else None

    def move(self, verb, after, **details):
        """Restores or undoes."""
        before = self.tree
        done, reply = self.attempt(verb, lambda: self.mount.request(verb, **details), after)
        if done:
            if reply["safety"]:
                self.checkpoints[reply["safety"]] = before.picture()
            self.undo = before
        return done

    def delete(self, identity):
        self.deleted.add(identity)
        done, _ = self.attempt("delete", lambda: self.mount.request("delete", ref=identity), self.tree)
        if done:
            self.checkpoints.pop(identity, None)
        elif not self.dead:
            self.deleted.discard(identity)
        return done

    def gc(self):
        return self.attempt("gc", lambda: self.mount.request("gc", grace_secs=0), self.tree)[0]

    def look(self, when, also=()):
        """Compares what is there with what was promised. Returns what is wrong."""
        found, wrong = scanned(self.mount.top)
        if found:
            nearest = None
            for tree in [self.tree, *self.maybe, *also]:
                different = differences(tree.picture(), found.picture())
                if not different:
                    self.tree, self.maybe = tree, []
                    nearest = []
                    break
                nearest = different if nearest is None or len(different) < len(nearest) else nearest
            wrong += [f"{when}: live tree: {len(nearest)} paths are wrong: {nearest[0]}"] if nearest else []
        present = self.mount.checkpoint_ids()
        for identity, picture in self.checkpoints.items():
            if identity not in present:
                if identity not in self.deleted:
                    wrong.append(f"{when}: acknowledged checkpoint {identity[:12]} is missing")
                continue
            found, trouble = scanned(f"{self.mount.top}/.memento/checkpoints/{identity}")
            wrong += [f"{when}: {sentence}" for sentence in trouble]
            if found:
                different = differences(picture, found.picture())
                wrong += [f"{when}: checkpoint {identity[:12]}: {different[0]}"] if different else []
        return wrong

    def works(self):
        """Looks whether the store goes on working. Returns what does not."""
        self.errors, self.quiet = [], False
        try:
            self.do("create", "after-all", 0o644)
            self.do("write", "after-all", 0, b"works")
            if self.errors:
                return [f"writing does not work afterwards: {self.errors}"]
            if not self.checkpoint(message="after all"):
                return [f"a checkpoint cannot be taken afterwards: {self.mount.says('error')}"]
            if not self.gc():
                return [f"gc does not work afterwards: {self.mount.says('error')}"]
        except OSError as err:
            return [f"it does not work afterwards: {err}"]
        return []
