"""Small questions to a file system, each asked in two directories: see the script beside this folder.

A question is a function in one of the modules below; it runs in a process and an empty directory of its own, and what it
returns, or how it fails, is compared. What a question finds on one side alone is a difference.
"""

import os
import shutil
import subprocess
import sys

from ask import PRIVATE, USERS, answer
import handles
import names
import ranges
import spaces
import states
import times

# What docs/semantics.md lists as otherwise than on ext4; that it still is so is looked at too.
LISTED = {
    "handles::temporary_files": "O_TMPFILE",
    "handles::regular_files_in_epoll": "epoll(7) of regular files",
    "ranges::ranges_that_move_others": "COLLAPSE_RANGE and INSERT_RANGE",
    "ranges::reads_without_waiting": "RWF_NOWAIT",
    "states::flags_and_maps": "flags of inodes, FIEMAP",
}
if "passthrough" in os.environ.get("MOUNT_OPTIONS", ""):
    LISTED["ranges::appends"] = "O_APPEND that is taken back from a file in the kernel's hand"
MODULES = [names, states, times, ranges, spaces, handles]
SECS_MAX = 60


def questions():
    for module in MODULES:
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}::{name}", value


def main():
    tops, only = sys.argv[1:3], sys.argv[3:]
    users = USERS if os.getuid() == 0 and not PRIVATE else [None]
    asked = differences = 0
    for name, question in questions():
        if only and not any(word in name for word in only):
            continue
        for user in users:
            found = []
            for top in tops:
                place = os.path.join(top, "probe")
                os.mkdir(place)
                found.append(answer(question, place, user, SECS_MAX))
                remove(place)
            asked += 1
            if name in LISTED:
                differences += found[0] == found[1]
                print(f"{name} as {user or 'oneself'}: {'not ' * (found[0] == found[1])}otherwise, as is known: {LISTED[name]}")
            elif found[0] != found[1]:
                differences += 1
                print(f"{name} as {user or 'oneself'}:")
                show_difference(*found)
            elif only:
                print(f"{name} as {user or 'oneself'}: {found[0]}")
    print(f"{asked} questions, {differences} differences")
    sys.exit(differences > 0)


def remove(place):
    """Removes what a question left, whatever its modes."""
    if os.getuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", place], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(place)


def show_difference(mine, theirs):
    mine, theirs = mine.split("\n"), theirs.split("\n")
    for at in range(max(len(mine), len(theirs))):
        one, two = (lines[at] if at < len(lines) else "-" for lines in (mine, theirs))
        if one != two:
            print(f"    {one}\n    on ext4 {two}")


main()
