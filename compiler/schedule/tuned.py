"""What was tuned before: the best decisions that logs hold for the kernels of one device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from compiler.schedule.log import Logged, log_files, read_logs
from compiler.schedule.records import CHOICE, Record, best, identity
from compiler.schedule.space import Decide, Space, from_plain, to_plain
from compiler.schedule.traces import is_current
from compiler.support.errors import TargetError, UsageError
from compiler.support.files import safe_name
from compiler.support.resources import data_folder
from compiler.target import HOST, Target, load

D = TypeVar("D")

MARGIN = 0.02
"""The part of the default's time that other decisions must gain to be taken: less is within the noise."""


_IN_NETWORK = f"{CHOICE} schedule of "


@dataclass(frozen=True)
class Tuned:
    """The best record of each work, by its name; only of one device, on one count of threads."""

    records: Mapping[str, Record] = field(default_factory=dict)

    def decide(self, workload: str, used: list[Record]) -> Decide:
        """Return what decides for the kernel that does `workload`; a record that it used is added to `used`.

        What was fastest in a network counts more than what was fastest alone. A record of another rule, or of
        decisions that this Kiln does not know, is of no use.
        """

        def choose(rule: str, space: Space[Any]) -> Any:
            for record, plain in self._of(workload, rule):
                decisions = from_plain(plain, space)
                if decisions is not None:
                    used.append(record)
                    return decisions
            return space.default

        return choose

    def _of(self, workload: str, rule: str) -> Iterator[tuple[Record, Any]]:
        chosen, fastest = self.records.get(in_network(workload)), self.records.get(workload)
        if chosen is not None and rule in chosen.decisions:
            yield chosen, chosen.decisions[rule]
        if fastest is not None and fastest.rule == rule:
            yield fastest, fastest.decisions

    def choose(self, site: Any, default: D, options: Sequence[D]) -> D:
        """Choose for a `site` of `compiler.passes.choices` what was measured as fastest, else `default`."""
        record = self.records.get(site.name)
        if record is None or record.rule != CHOICE:
            return default
        return next((each for each in options if to_plain(each) == record.decisions), default)


def tuned_for(target: Target, threads: int, logged: Logged) -> Tuned:
    """Return the best that was logged of `target` on so many threads; other devices' records have no say."""
    device = identity(target)
    mine = [
        record
        for record in logged.records
        if (record.device, record.threads) == (device, threads) and is_current(record.decisions)
    ]
    fastest = {record.workload: record for record in best(mine).values()}
    for record in best(record for record in mine if record.default).values():
        if fastest[record.workload].time > (1 - MARGIN) * record.time:
            fastest[record.workload] = record
    return Tuned(fastest)


def in_network(workload: str) -> str:
    """Return the name of the choice between schedules of `workload` by their times in a network.

    Options are one rule's plain decisions, by its name.
    """
    return f"{_IN_NETWORK}{workload}"


def log_folders(target: Target, more: Iterable[Path] = ()) -> list[Path]:
    """Return where logs of a device are: what Kiln ships, if there is any, the user's own, and `more`."""
    own = device_folder(target)
    places = [data_folder("tuning_logs") / own, user_folder() / own]
    return [*(place for place in places if place.is_dir()), *more]


def similar_records(names: Iterable[str], target: Target) -> list[Record]:
    """Return the records of devices like `target` that `names` stand for: of logs, of folders, of targets.

    Raises:
        UsageError: a name stands for no logs, or these hold nothing of this architecture.
    """
    found: list[Record] = []
    for name in names:
        logged = read_logs(_similar_logs(name))
        own, arch = identity(target), f"{target.arch}-"
        like = [each for each in logged.records if each.device.startswith(arch) and each.device != own]
        if not like:
            raise UsageError(f"expected records of another {target.arch} device in '{name}', found none")
        found += like
    return found


def _similar_logs(name: str) -> list[Path]:
    if Path(name).exists():
        return [Path(name)]
    homes = (data_folder("tuning_logs"), user_folder())
    plain = safe_name(name)
    if places := [home / plain for home in homes if (home / plain).is_dir()]:
        return places
    try:
        places = log_folders(load(name))
    except TargetError as error:
        raise UsageError(f"'{name}' is no log and no folder of logs, and as a target: {error}") from error
    if places:
        return places
    raise UsageError(f"there are no tuning logs of '{name}', neither shipped ones nor your own")


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


def other_logs(target: Target, path: Path) -> Logged:
    """Return what all logs of a device but `path` hold: shipped, the user's own, and those beside it."""
    folders = dict.fromkeys(folder.resolve() for folder in log_folders(target, [path.parent]))
    return read_logs(each for each in log_files(folders) if each != path.resolve())
