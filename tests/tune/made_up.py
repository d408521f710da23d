"""A task whose trials take a time that a formula gives, and who measures so."""

import math

from compiler.schedule.conv2d import Decisions
from compiler.schedule.space import Space
from compiler.schedule.tiles import Tile
from compiler.tune.task import Task
from compiler.tune.trial import Outcome

DEVICE = "x86_64-linux-made-up-2c#0"


def seconds(plain):
    """Return how long decisions take: best with 12 accumulators in tiles of 6 x 2 and chunks of 4."""
    tile = plain["tile"]
    return 1e-4 * (
        1
        + abs(math.log2(tile["rows"] / 6))
        + 0.5 * abs(tile["vectors"] - 2)
        + 0.3 * abs(math.log2(plain["chunk"] / 4))
    )


def task(name="conv2d 1x8 -> 1x8 float32 #1", calls=1, rows=16, chunks=(1, 2, 4, 8, 16)):
    """Return a task with a space of `rows` times four tiles, and chunks."""
    tiles = [Tile(row, vectors) for row in range(1, rows + 1) for vectors in range(1, 5)]
    space = Space(Decisions(Tile(2, 1), 1), {"tile": tiles, "chunk": chunks})
    return Task([name], name, None, calls, (False, True, False), "conv2d", space, 1e6, 1000)


class Formula:
    """Measures by `seconds`; trials that `fails` knows fail as it says."""

    def __init__(self, fails=lambda plain: None):
        self.fails, self.asked = fails, []

    def measure(self, trials, best):
        for place, trial in enumerate(trials):
            self.asked.append(trial)
            status = self.fails(trial.decisions)
            took = seconds(trial.decisions)
            yield place, Outcome("ok", (took, took * 1.01)) if status is None else Outcome(status)
