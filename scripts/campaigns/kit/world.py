"""All that was promised about one store: the trees of its clients, its checkpoints, its names, what undo brings back."""

import os

from .client import scanned
from .tree import Tree, differences


class Checkpoint:
    """An acknowledged checkpoint.

    `trees` holds one tree for each directory. Where a client worked meanwhile it is None until the checkpoint was looked at,
    and `ranges` has the client's history and the least and the most operations of it that may be in.
    """

    def __init__(self, trees, ranges=None):
        self.trees, self.ranges = trees, ranges or {}


class World:
    """What a store has to hold."""

    def __init__(self, directories):
        self.directories = directories
        self.trees = {name: Tree() for name in directories}
        self.checkpoints = {}  # Id to Checkpoint.
        self.maybe_deleted = set()  # A deletion was begun and never acknowledged.
        self.undo = None  # The trees that undo brings back, when that is known.

    def copy_of_trees(self):
        return {name: tree.copy() for name, tree in self.trees.items()}

    def check_live(self, top, candidates):
        """Compares the live tree with what it may be and takes it over. `candidates` has, for each directory, the trees it may be."""
        wrong = []
        for name in self.directories:
            found, trouble = scanned(f"{top}/{name}")
            if trouble:
                wrong += trouble
                continue
            picture = found.picture()
            nearest = close = None
            for tree in candidates[name]:
                tree = tree(found) if callable(tree) else tree  # See `tree.torn`.
                if tree is None:
                    continue
                different = differences(tree.picture(), picture)
                if not different:
                    self.trees[name] = tree
                    break
                if nearest is None or len(different) < len(nearest):
                    nearest, close = different, tree
            else:
                wrong.append(f"live tree, {name}: {len(nearest)} paths are wrong: {nearest[0]}{bytes_wrong(close, found, nearest[0])}")
        return wrong

    def check_checkpoint(self, mount, identity):
        """Compares a checkpoint with what it may hold, and learns which of that it is."""
        checkpoint, wrong = self.checkpoints[identity], []
        for name in self.directories:
            found, trouble = scanned(f"{mount.top}/.memento/checkpoints/{identity}/{name}")
            where = f"checkpoint {identity[:12]}, {name}"
            if trouble:
                wrong += trouble
            elif checkpoint.trees.get(name) is not None:
                different = differences(checkpoint.trees[name].picture(), found.picture())
                wrong += [f"{where}: {len(different)} paths are wrong: {different[0]}"] if different else []
            else:
                history, least, most = checkpoint.ranges[name]
                tree, nearest = history.find(found, least, most)
                wrong += [f"{where}: {sentence}" for sentence in nearest]
                checkpoint.trees[name] = tree
        if None not in checkpoint.trees.values():
            checkpoint.ranges = {}
        return wrong

    def check_ids(self, mount, others, elsewhere=frozenset()):
        """Looks whether exactly the checkpoints exist that should.

        `others` describes those that may exist besides: made by a command in flight, or by a restore that had to save what
        was written beside it more than once. `elsewhere` are those of other branches.
        """
        wrong = []
        present = mount.checkpoint_ids()
        for identity in list(self.checkpoints):
            if identity not in present:
                if identity not in self.maybe_deleted:
                    wrong.append(f"acknowledged checkpoint {identity[:12]} is missing")
                del self.checkpoints[identity]
        self.maybe_deleted &= set(self.checkpoints)
        for identity in present - set(self.checkpoints) - elsewhere:
            wrong += self.adopt(mount, identity, others)
        return wrong

    def adopt(self, mount, identity, others):
        """Takes up a checkpoint that nobody acknowledged, if it holds what one of `others` may hold."""
        trouble = [f"checkpoint {identity[:12]} exists, and nobody asked for it"]
        self.checkpoints[identity] = None
        for other in others:
            self.checkpoints[identity] = Checkpoint(dict(other.trees), dict(other.ranges))
            trouble = self.check_checkpoint(mount, identity)
            if not trouble:
                return []
        del self.checkpoints[identity]
        return [f"(not acknowledged) {sentence}" for sentence in trouble]


def bytes_wrong(expected, found, sentence):
    """Says which bytes of the file differ that a sentence of `differences` is about."""
    path = sentence.split(":")[0]
    if expected is None or found is None or path not in expected.paths or path not in found.paths:
        return ""
    one, other = expected.node(path).data, found.node(path).data
    at = [place for place, (a, b) in enumerate(zip(one, other)) if a != b]
    return f"; {len(at)} bytes from {at[0]} to {at[-1]}, {one[at[0]:][:20]} became {other[at[0]:][:20]}" if at else ""


def make_directories(mount, world):
    """Makes the directories of the world in a fresh mount."""
    for name in world.directories:
        os.mkdir(f"{mount.top}/{name}")
