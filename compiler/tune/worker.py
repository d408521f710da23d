"""The process that builds and measures: it holds one `Bench`, and functions that others submit use it."""

from __future__ import annotations

import gc
import os
import resource
import signal
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import TYPE_CHECKING

from compiler.target import Target
from compiler.tune.trial import Kernel, Outcome, Patience, Tools, Trial

if TYPE_CHECKING:
    from compiler.tune.bench import Bench

_bench: Bench | None = None

_RARELY = 200_000
"""New objects between two looks for garbage."""


def start(target: Target, tools: Tools, threads: int, patience: Patience) -> None:
    """Make the bench of this process."""
    global _bench
    obey()
    # TVM's threads look for work so often before they sleep; by default for a tenth of a second, while the
    # next trials are built.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "3000")
    if patience.memory:
        resource.setrlimit(resource.RLIMIT_AS, (patience.memory, patience.memory))
    from compiler.tune.bench import Bench

    _bench = Bench(target, tools, threads, patience)
    # TVM makes objects by the thousand, without cycles: looking for some took a tenth of the time.
    gc.freeze()
    gc.set_threshold(_RARELY)


def obey() -> None:
    """Leave it to who asks to end this process, and end with it."""
    # Ctrl-C is for who asks; it ends this process in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that asks is gone, killed perhaps: nobody else would end it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def add(number: int, kernel: Kernel) -> None:
    """Take in a kernel; see `Bench.add`."""
    assert _bench is not None
    _bench.add(number, kernel)


def build(places: Sequence[int], trials: Sequence[Trial]) -> list[Outcome | None]:
    """Build trials; see `Bench.build`."""
    assert _bench is not None
    return _bench.build(places, trials)


def run(place: int, best: float, last: bool) -> Outcome:
    """Run what was built; see `Bench.run`."""
    assert _bench is not None
    return _bench.run(place, best, last)
