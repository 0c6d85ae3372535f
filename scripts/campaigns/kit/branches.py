"""Branches beside the main line: what was promised about them, the commands on them, a client that works on one."""

import json
import os

from .client import Client, scanned
from .operations import Doer, Draw, first_part
from .tree import Tree, differences, torn

BRANCHES_MAX = 4
# Commands that run beside the load, and how often each is drawn.
BESIDE = {"fork": 3, "branch_work": 6, "branch_checkpoint": 4, "branch_restore": 3, "branch_rename": 1, "branch_delete": 2}


def whole(trees):
    """Returns one tree that has the trees in directories of their names."""
    one = Tree()
    for name, tree in trees.items():
        one.do_mkdir(name, 0o755)
        moved = {}
        for path, number in tree.paths.items():
            if number in moved:
                one.paths[f"{name}/{path}"] = moved[number]
            else:
                one._add(f"{name}/{path}", tree.nodes[number])
                moved[number] = one.next
    return one


class Held:
    """An acknowledged checkpoint of a branch. `tree` is a tree, or a history with the least and the most operations that are in."""

    def __init__(self, tree, branch):
        self.tree, self.branch = tree, branch
        self.needed = True  # With its branch it may go.
        self.looked = False


class Branches:
    """What a store has to hold besides the main line."""

    def __init__(self):
        self.trees = {}  # By the name of the branch.
        self.held = {}  # By id.
        self.gone = []  # Trees that branches had before they were deleted or restored: a checkpoint may have saved them.
        self.forget()

    def forget(self):
        """A cycle begins: nothing is in flight, nobody works."""
        self.instead = []  # Trees of all branches that may be there instead: a command in flight happened.
        self.busy, self.client = None, None
        self.in_flight = []  # Checkpoints in flight of the branch on which the client works.

    def idle(self):
        return [name for name in self.trees if name != self.busy]

    def look(self, mount):
        """Compares the branches with what they may be, and takes over what they are. Returns what is wrong."""
        found, wrong = {}, []
        for name in set(os.listdir(f"{mount.top}/.memento/branches")) - {"main"}:
            found[name], trouble = scanned(f"{mount.top}/.memento/branches/{name}")
            wrong += trouble
        if wrong:
            return wrong
        nearest = None
        for state in [self.trees, *self.instead]:
            taken, wrong = self.match(state, found)
            if not wrong:
                self.trees = taken
                return []
            nearest = wrong if nearest is None or len(wrong) < len(nearest) else nearest
        return nearest

    def match(self, state, found):
        if state.keys() != found.keys():
            return None, [f"branches {sorted(found)} are there, not {sorted(state)}"]
        taken, wrong = dict(state), []
        for name, tree in state.items():
            if name == self.busy:
                history = self.client.history
                taken[name], nearest = history.find(found[name], history.returned(), history.begun())
                for cut_short in history.cut_short() if nearest else []:
                    tree = cut_short(found[name])
                    if tree and not differences(tree.picture(), found[name].picture()):
                        taken[name], nearest = tree, []
                wrong += [f"branch {name}: {sentence}" for sentence in nearest]
            else:
                if callable(tree):
                    tree = taken[name] = tree(found[name]) or Tree()
                different = differences(tree.picture(), found[name].picture())
                wrong += [f"branch {name}: {len(different)} paths are wrong: {different[0]}"] if different else []
        return taken, wrong

    def check_ids(self, mount, known, every=False):
        """Looks at the checkpoints of branches. Returns the ids of those that are there, and what is wrong."""
        present, wrong = mount.checkpoint_ids(), []
        for identity in present - set(known) - set(self.held):
            if request(mount.top, "show", ref=identity)["branch"] != "main":
                wrong += self.adopt(mount, identity)
        for identity, held in list(self.held.items()):
            if identity not in present:
                wrong += [f"acknowledged checkpoint {identity[:12]} of {held.branch} is missing"] if held.needed else []
                del self.held[identity]
            elif every or not held.looked:
                wrong += self.check(mount, identity)
        return set(self.held) - set(known), wrong

    def check(self, mount, identity):
        held = self.held[identity]
        found, trouble = scanned(f"{mount.top}/.memento/checkpoints/{identity}")
        where = f"checkpoint {identity[:12]} of {held.branch}"
        if not found:
            return trouble
        held.looked = True
        if isinstance(held.tree, Tree):
            different = differences(held.tree.picture(), found.picture())
            return [f"{where}: {len(different)} paths are wrong: {different[0]}"] if different else []
        history, least, most = held.tree
        held.tree, nearest = history.find(found, least, most)
        if held.tree is None:
            del self.held[identity]
        return [f"{where}: {sentence}" for sentence in nearest]

    def adopt(self, mount, identity):
        """Takes up a checkpoint that nobody acknowledged, if it holds what a branch held."""
        found, trouble = scanned(f"{mount.top}/.memento/checkpoints/{identity}")
        if not found:
            return trouble
        picture = found.picture()
        candidates = [tree for state in [self.trees, *self.instead] for tree in state.values() if isinstance(tree, Tree)] + self.gone
        candidates = [tree for tree in candidates if not differences(tree.picture(), picture)]
        candidates += [tree for tree in (history.find(found, least, most)[0] for history, least, most in self.in_flight) if tree]
        if candidates:
            self.held[identity] = Held(candidates[0], "a branch")
            self.held[identity].needed = False
            return []
        return [f"checkpoint {identity[:12]} of a branch exists, and holds what no branch held"]


def request(view, verb, **details):
    """Runs a command on the branch that `view` shows, and returns its reply."""
    path = f"{view}/.memento/requests/branches-{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps({"do": verb, **details}).encode())
    finally:
        os.close(descriptor)
    with open(path) as reply:
        return json.load(reply)


class OnBranches:
    """Commands of a cycle on branches. The class it is mixed into has `mount`, `world`, `rng`, `stop` and `known()`."""

    def view(self, name):
        return f"{self.mount.top}/.memento/branches/{name}"

    def start_branch_client(self):
        """Lets a process work on one of the branches."""
        branches = self.world.branches
        branches.forget()
        if branches.trees:
            name = self.rng.choice(list(branches.trees))
            seed = self.rng.randrange(1 << 40)
            client = Client(self.view(name), branches.trees[name], f"{self.mount.base}/load-branch", seed, self.stop)
            branches.busy, branches.client = name, client

    def stop_branch_client(self):
        """Lets it end. Returns whether it met trouble."""
        branches = self.world.branches
        client = branches.client
        if client is None or hasattr(client, "history"):
            return False
        client.history = client.join()
        branches.trees[branches.busy] = client.history.after(client.history.returned())
        history = client.history
        for held in branches.held.values():
            if isinstance(held.tree, tuple) and held.tree[0] is client:
                held.tree = (history, history.returned(held.tree[1]), history.begun(held.tree[2]))
        branches.in_flight = [(history, history.returned(least), history.begun()) for _, least in branches.in_flight]
        client.close()
        return self.look_at(f"on branch {branches.busy}", client, history)

    def drawn(self):
        """Returns a branch on which nobody works, or None."""
        idle = self.world.branches.idle()
        return self.rng.choice(idle) if idle else None

    def hold(self, identity, tree, name):
        if identity and identity not in self.world.checkpoints:
            self.world.branches.held.setdefault(identity, Held(tree, name))

    def fork(self):
        """Forks a checkpoint of the main line, or the live state of a branch."""
        branches = self.world.branches
        if len(branches.trees) >= BRANCHES_MAX:
            return
        name, source, identity = f"s{self.rng.randrange(1 << 40)}", self.drawn(), self.known()
        if source and (identity is None or self.rng.random() < 0.5):
            tree, view, details = branches.trees[source].copy(), self.view(source), {}
        elif identity:
            tree, view, details = whole(self.world.checkpoints[identity].trees), self.mount.top, {"at": identity}
        else:
            return
        branches.instead = [branches.trees | {name: tree}]
        newest = request(view, "fork", name=name, **details)["newest"]
        if not details:
            self.hold(newest, tree, source)
        branches.trees, branches.instead = branches.instead[0], []

    def branch_work(self):
        branches, name = self.world.branches, self.drawn()
        if name is None:
            return
        draw, doer = Draw(self.rng, branches.trees[name]), Doer(self.view(name))
        for _ in range(20):
            operation = draw.operation()
            if operation[0] == "map":
                continue  # A dead mount would end this process.
            tree, part = branches.trees[name].copy(), first_part(operation)
            if part:
                partial = branches.trees[name].copy()
                partial.apply(part)
                branches.instead.append(branches.trees | {name: partial})
            tree.apply(operation)
            branches.instead += [branches.trees | {name: after} for after in (tree, torn(branches.trees[name], operation))]
            doer.perform(operation)
            branches.trees, branches.instead = branches.trees | {name: tree}, []
            draw.tree = tree

    def branch_checkpoint(self):
        """Checkpoints a branch, also the one on which the client works."""
        branches = self.world.branches
        if not branches.trees:
            return
        name = self.rng.choice(list(branches.trees))
        if name != branches.busy:
            reply = request(self.view(name), "checkpoint", message="kill, on a branch")
            if reply["created"]:
                self.hold(reply["id"], branches.trees[name], name)
            return
        least = branches.client.position()
        branches.in_flight = [(branches.client, least)]
        reply = request(self.view(name), "checkpoint", message="kill, on a branch with a client")
        if reply["created"]:
            self.hold(reply["id"], (branches.client, least, branches.client.position()), name)
        branches.in_flight = []

    def branch_restore(self):
        branches, name = self.world.branches, self.drawn()
        known = [identity for identity, held in branches.held.items() if isinstance(held.tree, Tree) and held.needed]
        if name is None or not known:
            return
        identity = self.rng.choice(known)
        before, after = branches.trees[name], branches.held[identity].tree.copy()
        branches.instead = [branches.trees | {name: after}]
        branches.gone.append(before)
        reply = request(self.view(name), "restore", ref=identity)
        self.hold(reply["safety"], before, name)
        branches.trees, branches.instead = branches.instead[0], []
        if reply["changes"] and self.rng.random() < 0.5:
            branches.instead = [branches.trees | {name: before}]
            reply = request(self.view(name), "undo")
            branches.trees, branches.instead = branches.instead[0], []

    def branch_rename(self):
        branches, old = self.world.branches, self.drawn()
        if old is None:
            return
        new = f"s{self.rng.randrange(1 << 40)}"
        renamed = {new if name == old else name: tree for name, tree in branches.trees.items()}
        branches.instead = [renamed]
        os.rename(self.view(old), self.view(new))
        branches.trees, branches.instead = renamed, []
        for held in branches.held.values():
            held.branch = new if held.branch == old else held.branch

    def branch_delete(self):
        """Deletes a branch, and often takes that back."""
        branches, name = self.world.branches, self.drawn()
        if name is None:
            return
        tree, needed = branches.trees[name], [held for held in branches.held.values() if held.branch == name and held.needed]
        left = {other: tree for other, tree in branches.trees.items() if other != name}
        branches.instead, self.world.undo = [left], None
        branches.gone.append(tree)
        for held in needed:
            held.needed = False
        request(self.mount.top, "delete_branch", branch=name)
        if self.rng.random() < 0.6:
            branches.trees, branches.instead = left, [branches.trees]
            request(self.mount.top, "undo")
            branches.trees, branches.instead = branches.instead[0], []
            for held in needed:
                held.needed = True
        else:
            branches.trees, branches.instead = left, []
