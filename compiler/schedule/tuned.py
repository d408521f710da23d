"""What was tuned before: the best decisions that logs hold for the kernels of one device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.schedule.log import Logged, read_logs
from compiler.schedule.records import Record, best, identity
from compiler.schedule.space import Decide, Space, from_plain
from compiler.support.resources import data_folder
from compiler.target import HOST, Target


@dataclass(frozen=True)
class Tuned:
    """The best record of each work, by its name; only of one device, on one count of threads."""

    records: Mapping[str, Record] = field(default_factory=dict)

    def decide(self, workload: str, used: list[Record]) -> Decide:
        """Return what decides for the kernel that does `workload`; a record that it used is added to `used`.

        A record of another rule, or of decisions that this Kiln does not know, is of no use.
        """

        def choose(rule: str, space: Space[Any]) -> Any:
            record = self.records.get(workload)
            if record is not None and record.rule == rule:
                decisions = from_plain(record.decisions, space)
                if decisions is not None:
                    used.append(record)
                    return decisions
            return space.default

        return choose


def tuned_for(target: Target, threads: int, logged: Logged) -> Tuned:
    """Return the best that was logged of `target` on so many threads; other devices' records have no say."""
    device = identity(target)
    found = best(record for record in logged.records if (record.device, record.threads) == (device, threads))
    return Tuned({record.workload: record for record in found.values()})


def log_folders(target: Target, more: Iterable[Path] = ()) -> list[Path]:
    """Return where logs of a device are: what Kiln ships, if there is any, the user's own, and `more`."""
    own = device_folder(target)
    places = [data_folder("tuning_logs") / own, user_folder() / own]
    return [*(place for place in places if place.is_dir()), *more]


def user_folder() -> Path:
    """Return where the user's logs are, in one folder a device: ``$XDG_DATA_HOME/kiln/tuning_logs``."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "kiln" / "tuning_logs"


def device_folder(target: Target) -> str:
    """Return the name of a device's folder: of this machine, its CPU's."""
    return target.cpu if target.name == HOST else target.name


def read_tuned(target: Target, threads: int, more: Iterable[Path] = ()) -> tuple[Tuned, Logged]:
    """Return the best of all logs of a device, and what they hold.

    Raises:
        UsageError: a log cannot be read.
    """
    logged = read_logs(log_folders(target, more))
    return tuned_for(target, threads, logged), logged
