"""A page about a tuning, made from its log alone: while it runs, when it has ended, or on another machine.

Who has tuned adds what no log holds: see `compiler.tune.beside`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from compiler.schedule.records import Record, best, latest
from compiler.support import pages
from compiler.support.errors import InputError
from compiler.tune.beside import Beside

_MOST_SOURCES = 30
"""Schedules beyond the page's so many longest kernels are left out: each is some hundred lines."""


def write_page(records: Sequence[Record], title: str, path: Path, beside: Beside | None = None) -> None:
    """Write a page about the records of one device and count of threads to `path`, whole or not at all.

    `beside` is what the log does not hold, where that is known.

    Raises:
        InputError: there are no records.
        UsageError: plotly, which draws it, is not installed, or `path` cannot be written.
    """
    beside = beside or Beside()
    records = of_network(records, beside.calls)
    if not records:
        raise InputError("expected records to report about, got none; tune first")
    pages.require_plotly()
    figures = pages.charts([_curve(records, beside), _tasks(records)])
    sections = [_facts(records, beside), *figures, _kernels(records, beside), _sources(records, beside)]
    pages.write_page(f"Tuning of {title}", sections, path)


def of_network(records: Sequence[Record], calls: Mapping[str, int]) -> list[Record]:
    """Return the records of kernels that a run of the network calls, each with how often it does.

    What was measured to choose between ways of making the graph says 0. `calls` has what is known of a
    workload beside the log.
    """
    known = dict(calls)
    for record in records:
        if record.workload not in calls:
            known[record.workload] = max(record.calls, known.get(record.workload, 0))
    return [replace(each, calls=known[each.workload]) for each in records if known[each.workload]]


def curve(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Return hours of tuning, and the seconds that all kernels of a network take with the best until then.

    It begins when each kernel that was tuned has been measured once.
    """
    works = {record.workload for record in records if record.seconds}
    best: dict[str, float] = {}
    found: list[tuple[float, float]] = []
    for hours, record in _in_time(records):
        if record.seconds:
            seconds = record.calls * record.time
            best[record.workload] = min(seconds, best.get(record.workload, seconds))
            if len(best) == len(works):
                found.append((hours, sum(best.values())))
    return found


def _in_time(records: Sequence[Record]) -> Iterator[tuple[float, Record]]:
    """Yield records with the hours of tuning before them, of all sessions one after the other."""
    before, session, spent = 0.0, "", 0.0
    for record in records:
        if record.session != session:
            before, session = before + spent, record.session
        spent = record.spent
        yield (before + spent) / 3600, record


def _facts(records: Sequence[Record], beside: Beside) -> str:
    counts = Counter(record.status for record in records)
    total = curve(records)
    last = records[-1]
    facts = [
        ("device", last.device.split("#")[0]),
        ("CPU", last.cpu),
        ("threads", last.threads),
        ("versions", f"Kiln {last.kiln}, TVM {last.tvm}"),
        ("trials", ", ".join(f"{count} {status}" for status, count in counts.most_common())),
        (
            "time",
            f"{total[-1][0]:.2f} hours in {len({each.session for each in records})} sessions"
            if total
            else "",
        ),
        (
            "kernels",
            f"{total[0][1] * 1e3:.3f} ms at first, {total[-1][1] * 1e3:.3f} ms at last" if total else "",
        ),
    ]
    if beside.peer is not None:
        facts.append(("peer", str(beside.peer)))
    return pages.table(("", ""), facts)


def _curve(records: Sequence[Record], beside: Beside) -> Any:
    import plotly.graph_objects as go

    points = [(hours, seconds + (beside.rest or 0.0)) for hours, seconds in curve(records)]
    if not points:
        return None
    what = "All tuned kernels of one run" if beside.rest is None else "One run of the network, estimated"
    line = go.Scatter(
        x=[hours * 60 for hours, _ in points],
        y=[seconds * 1e3 for _, seconds in points],
        line_shape="hv",
        name="Kiln",
    )
    figure = go.Figure([line])
    if beside.peer is not None:
        figure.add_hline(
            y=beside.peer.seconds * 1e3, line_dash="dash", annotation_text=escape(str(beside.peer))
        )
    figure.update_layout(
        title=f"{what}, each kernel with the best schedule so far",
        xaxis_title="minutes of tuning",
        yaxis_title="milliseconds",
    )
    return figure


def _tasks(records: Sequence[Record]) -> Any:
    import plotly.graph_objects as go

    rows = _rows(records)
    names = [f"{work.split(' #')[0]} ({number})" for number, (work, *_) in enumerate(rows)]
    figure = go.Figure(
        [
            go.Bar(y=names, x=[first * 1e3 for _, _, first, _ in rows], orientation="h", name="untuned"),
            go.Bar(
                y=names, x=[best.calls * best.time * 1e3 for *_, best in rows], orientation="h", name="tuned"
            ),
        ]
    )
    figure.update_layout(
        title="Kernels: all calls of one run",
        xaxis_title="milliseconds",
        height=200 + 28 * len(rows),
        yaxis={"autorange": "reversed", "automargin": True},
    )
    return figure


def _kernels(records: Sequence[Record], beside: Beside) -> str:
    rows = [
        (
            work.split(" #")[0],
            best.calls,
            trials,
            f"{first * 1e6:.0f}",
            f"{best.calls * best.time * 1e6:.0f}",
            f"{best.calls * best.time / first:.2f}",
            f"{best.flops / best.time / 1e9:.0f}" if best.flops else "",
            _of_peak(best, beside),
            "default" if best.default else words(best.decisions),
        )
        for work, trials, first, best in _rows(records)
    ]
    columns = (*_COLUMNS[:-1], "of peak", _COLUMNS[-1])
    if not beside.peaks:
        return "<h2>Kernels</h2>" + pages.table(_COLUMNS, [(*row[:-2], row[-1]) for row in rows])
    return "<h2>Kernels</h2>" + pages.table(columns, rows)


_COLUMNS = ("kernel", "calls", "trials", "untuned us", "tuned us", "ratio", "GFLOPS", "decisions")


def _of_peak(record: Record, beside: Beside) -> str:
    """Return which part of the machine's peak a kernel reaches, by the operations of its own loops."""
    peak = beside.peaks.get(record.workload)
    return f"{record.flops / record.time / peak:.0%}" if peak and record.flops else ""


def _sources(records: Sequence[Record], beside: Beside) -> str:
    """Return the best schedules as text, each folded up."""
    rows = [row for row in _rows(records) if row[0] in beside.sources][:_MOST_SOURCES]
    if not rows:
        return ""
    texts = [
        f"<details><summary>{escape(work.split(' #')[0])}</summary>"
        f"<pre>{escape(beside.sources[work])}</pre></details>"
        for work, *_ in rows
    ]
    return f"<h2>The best schedules</h2>{''.join(texts)}"


def _rows(records: Sequence[Record]) -> list[tuple[str, int, float, Record]]:
    """Return work, trials, seconds of all calls untuned, and the best record; the longest first."""
    trials = Counter(record.workload for record in records)
    first = {
        record.workload: record.calls * record.time
        for record in latest(records).values()
        if record.default and record.seconds
    }
    fastest = {record.workload: record for record in best(records).values()}
    rows = [
        (work, trials[work], first.get(work, each.calls * each.time), each) for work, each in fastest.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def words(decisions: Any) -> str:
    """Return decisions in few words: ``tile 7x2, chunk 4, blocks_first``."""
    found = []
    for name, value in decisions.items():
        if isinstance(value, dict):
            found.append(f"{name} {'x'.join(str(each) for each in value.values())}")
        elif value is True or isinstance(value, list):  # a list of steps is too long to be read
            found.append(name)
        elif value is not False and value is not None:
            found.append(f"{name} {value}")
    return ", ".join(found)
