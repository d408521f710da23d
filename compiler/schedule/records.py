"""Records: what was measured of one schedule of one kernel on one device, as one readable line.

A record names the work (`compiler.schedule.workload`), the device (`identity`) and the decisions of a rule,
none of which depends on TVM's own formats.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from compiler.target import Target

FORMAT = 1
"""The format of lines that this Kiln writes, and the newest that it reads."""

CHOICE = "choice"
"""The rule of records of choices between graphs: see `compiler.passes.choices`. Kernels that were measured
for one, and not for a network, have 0 calls."""

AGAIN = "a leader, measured again"
"""The note of a record that follows others of the same trial: the leaders of a work are measured in turns."""

Status = Literal["ok", "wrong", "crashed", "timed out", "not built"]
"""How a trial ended: well; with other results than the default schedule's; with the death of the process that
ran it; not in time; before there was any code."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial.

    Attributes:
        workload: what the kernel computes, see `compiler.schedule.workload`.
        device: what it ran on, see `identity`.
        threads: how many it ran on.
        rule: the rule that scheduled it.
        decisions: what the rule decided, by name.
        status: how it ended.
        seconds: of one call, as measured several times; empty unless it ended well.
        noise: how far the middle half of these lies apart, relative to their median.
        calls: how often one run of the network calls such kernels; 0 for what is in none, see `CHOICE`.
        flops: operations of one call, 0 where they are not known.
        default: whether these are the decisions of untuned code.
        at: when, ISO 8601 in UTC.
        cpu: the maker's name of the CPU, and LLVM's of its kind.
        kiln: the version of Kiln.
        tvm: the version of TVM.
        note: what went wrong, or was odd: a throttled clock, a busy machine.
        session: which tuning it was measured in.
        spent: seconds since that began, without those between a kill and the next start.
    """

    workload: str
    device: str
    threads: Annotated[int, Ge(1)]
    rule: str
    decisions: Mapping[str, Any] = field(default_factory=dict, hash=False)
    status: Status = "ok"
    seconds: tuple[Annotated[float, Gt(0)], ...] = ()
    noise: float = 0.0
    calls: Annotated[int, Ge(0)] = 1
    flops: Annotated[float, Ge(0)] = 0.0
    default: bool = False
    at: str = ""
    cpu: str = ""
    kiln: str = ""
    tvm: str = ""
    note: str = ""
    session: str = ""
    spent: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.seconds) != (self.status == "ok"):
            raise ValueError("expected times exactly where the status is ok")

    @property
    def time(self) -> float:
        """The median of `seconds`; infinite where there are none."""
        return statistics.median(self.seconds) if self.seconds else float("inf")

    @property
    def key(self) -> tuple[str, str, int]:
        """What has to be the same where a record is to be of use."""
        return self.workload, self.device, self.threads

    @property
    def trial(self) -> str:
        """A name of the work, the device and the decisions: the same trial again has the same."""
        return json.dumps([*self.key, self.rule, self.decisions], sort_keys=True)


def identity(target: Target) -> str:
    """Return the name of all that a schedule's time depends on in the description of a device.

    Two devices have the same exactly if their code and its speed are taken for the same: architecture, CPU,
    features, vectors, caches, cores and accelerator.
    """
    facts = [
        target.kind, target.arch, target.os, target.cpu, sorted(target.features), target.abi, target.cores,
        repr(target.vector), repr(target.caches), repr(target.accelerator),
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    what = target.cpu if target.accelerator is None else f"{target.kind}-{target.accelerator.arch}"
    return f"{target.arch}-{target.os}-{what}-{target.cores}c#{digest}"


def to_line(record: Record) -> str:
    """Return the line of a record, without its end."""
    plain: dict[str, Any] = {"format": FORMAT}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.default is MISSING or value != each.default or each.name == "status":
            plain[each.name] = value
    return json.dumps(plain, ensure_ascii=False)


def from_line(line: str) -> Record:
    """Read a line that `to_line` wrote, or a later Kiln that still writes the same format.

    Raises:
        ValueError: it is none, and why.
    """
    from pydantic import ValidationError

    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON: cut off, or of something else") from error
    number = data.pop("format", None) if isinstance(data, dict) else None
    if not isinstance(number, int):
        raise ValueError("it is no record of Kiln's")
    if number > FORMAT:
        raise ValueError(f"it has the format {number}, this Kiln reads {FORMAT}")
    try:
        record: Record = _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    return record


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """Return the last record of each trial, by its name: leaders are measured once more at the end."""
    found: dict[str, Record] = {}
    for record in records:
        found.pop(record.trial, None)  # its place is that of the last one, too
        found[record.trial] = record
    return found


def comparable(records: Iterable[Record]) -> dict[tuple[str, str, int], list[Record]]:
    """Return by work, device and count of threads those records of which the fastest is the best.

    A machine has good and bad minutes, and sessions are days apart. Leaders of one session were measured in
    turns: where there are any, the last session's alone can be compared. Else it is the `latest` of each
    trial.
    """
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    return {key: _in_turns(group) for key, group in groups.items()}


def _in_turns(records: Sequence[Record]) -> list[Record]:
    leaders = [record for record in records if record.note == AGAIN]
    if leaders:
        _, last = max(enumerate(leaders), key=lambda each: (each[1].at, each[0]))
        records = [record for record in leaders if record.session == last.session]
    return list(latest(records).values())


def best(records: Iterable[Record]) -> dict[tuple[str, str, int], Record]:
    """Return the fastest record of each work, device and count of threads, of those that are `comparable`."""
    found = {key: min(group, key=lambda each: each.time) for key, group in comparable(records).items()}
    return {key: record for key, record in found.items() if record.seconds}
