"""The driver's fifth page: trials are built or run elsewhere than in processes that do both.

built    in processes of this machine, or on a cluster
run      on boards that a tracker knows, or here
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compiler.build.kernel_library import kernel_library
from compiler.deploy import choose_threads, use_threads
from compiler.support.errors import UsageError
from compiler.support.ssh import forward, free_port, tunnel
from compiler.target import Target
from compiler.tune.boards import BoardWorkers
from compiler.tune.builder import Builders, Cluster
from compiler.tune.runner import Where
from compiler.tune.tracker import PORT, Address, address, known_boards
from compiler.tune.trial import Patience


@dataclass(frozen=True)
class Lab:
    """What a user says of boards and clusters.

    Attributes:
        board: the key of boards at the tracker; by default the descriptor's, else the target's name.
        tracker: ``HOST:PORT``; by default this machine's, if a board is given.
        ssh: ``USER@HOST`` from where tracker and boards are reached.
        workers: ``dask://HOST:PORT`` of a cluster that builds.
    """

    board: str | None = None
    tracker: str | None = None
    ssh: str | None = None
    workers: str | None = None

    @property
    def has_boards(self) -> bool:
        """Whether trials run on boards."""
        return self.board is not None or self.tracker is not None or self.ssh is not None

    def key(self, target: Target) -> str:
        """Return the key of the boards of `target`."""
        return self.board or (target.board.key if target.board else None) or target.name

    def threads(self, target: Target, wanted: int | None) -> int:
        """Return how many threads kernels run on; by default one a core.

        Raises:
            UsageError: there are not so many.
        """
        if not self.has_boards:
            return choose_threads(wanted)
        if wanted is not None and not 1 <= wanted <= target.cores:
            raise UsageError(
                f"expected 1 to {target.cores} threads (the cores of '{target.name}'), got {wanted}"
            )
        return wanted or target.cores


@dataclass(frozen=True)
class Elsewhere:
    """Where trials are built and run; see `at`."""

    where: Where
    cluster: Cluster | None = None

    def measures(
        self, target: Target, threads: int, builders: int, patience: Patience | None = None
    ) -> BoardWorkers:
        """Return who measures kernels of `target` there, a context manager."""
        patience = patience or Patience()
        made = Builders(target, kernel_library, patience, builders, self.cluster)
        return BoardWorkers(made, self.where, target, threads, patience)


@contextmanager
def at(lab: Lab, target: Target) -> Iterator[Elsewhere | None]:
    """Find out whether boards and cluster are there; yield them, None where the user wants neither.

    Raises:
        UsageError: a tracker, a board or a cluster is missing, or ssh fails.
    """
    with ExitStack() as stack:
        cluster = None
        if lab.workers is not None:
            cluster = Cluster(lab.workers)
            stack.callback(cluster.close)
        if not lab.has_boards:
            yield None if cluster is None else Elsewhere(Where(use_threads=use_threads), cluster)
            return
        tracker, key = address(lab.tracker or f"127.0.0.1:{PORT}"), lab.key(target)
        reach = None
        if lab.ssh is not None:
            own = free_port()
            control = stack.enter_context(tunnel(lab.ssh, [f"{own}:{tracker}"]))
            tracker, reach = Address("127.0.0.1", own), partial(_reach, lab.ssh, control)
        known_boards(tracker, key)
        yield Elsewhere(Where(tracker, key, reach=reach), cluster)


_reached: dict[Address, Address] = {}
"""Boards that this process has a port for."""


def _reach(there: str, control: Path, board: Address) -> Address:
    """Return the address by which this machine reaches, through ssh, what a tracker told the address of."""
    if board not in _reached:
        _reached[board] = Address("127.0.0.1", forward(there, control, board.host, board.port))
    return _reached[board]
