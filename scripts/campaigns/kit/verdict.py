"""Counts cycles and violations, and says so in the one form that all campaigns have."""

import random
import signal
import sys
import time


class Verdict:
    """What a campaign found. The last line it prints is `N cycles, M violations`, or another `unit`."""

    def __init__(self, name, unit="cycles"):
        self.name, self.unit, self.cycles, self.violations = name, unit, 0, 0
        self.begun = time.monotonic()

    def cycle(self, wrong, where):
        """Counts a cycle; `wrong` lists what was violated in it, a sentence each."""
        self.cycles += 1
        self.violations += bool(wrong)
        for sentence in wrong:
            print(f"VIOLATION {where}: {sentence}", flush=True)

    def end(self):
        """Prints the last line and ends with the status that goes with it."""
        print(f"{self.name}: {time.monotonic() - self.begun:.0f} s")
        print(f"{self.cycles} {self.unit}, {self.violations} violations", flush=True)
        sys.exit(1 if self.violations or not self.cycles else 0)


def arguments(defaults):
    """Returns the numbers of the command line, with defaults; a seed that is not given is drawn. Prints the seed, which is the last."""
    given = [int(word) for word in sys.argv[1:] if word.isdigit()]
    numbers = [given[at] if at < len(given) else default for at, default in enumerate(defaults)]
    seed = given[len(defaults)] if len(given) > len(defaults) else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that everything is cleaned up.
    return [*numbers, seed]
