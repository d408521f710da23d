"""What can be done with logs: an overview, fewer lines, several made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.schedule.records import Record, comparable


@dataclass(frozen=True)
class Overview:
    """What a log holds of one device and count of threads."""

    device: str
    threads: int
    workloads: int
    trials: int
    failed: int
    cpu: str
    last: str


def overviews(records: Iterable[Record]) -> list[Overview]:
    """Return one overview for each device and count of threads, in the order of their first records."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.device, record.threads), []).append(record)
    return [
        Overview(
            device,
            threads,
            len({record.workload for record in group}),
            len(group),
            sum(record.status != "ok" for record in group),
            group[-1].cpu,
            max(record.at for record in group),
        )
        for (device, threads), group in groups.items()
    ]


def merged(records: Iterable[Record]) -> list[Record]:
    """Return each record once, in the order of their times; a record that is in two logs is one."""
    distinct = dict.fromkeys(records)
    return sorted(distinct, key=lambda record: record.at)


def compacted(records: Sequence[Record], count: int) -> list[Record]:
    """Return the fastest `count` of each work on each device, and the default's, in their order.

    Only those count that can be compared, see `compiler.schedule.records.comparable`.
    """
    kept: set[Record] = set()
    for group in comparable(records).values():
        fastest = sorted((each for each in group if each.seconds), key=lambda each: each.time)
        kept.update([*fastest[:count], *(each for each in fastest if each.default)])
    return [record for record in dict.fromkeys(records) if record in kept]
