"""The columns that tables about kernels being tuned share, in the moving view and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.cli.columns import Column

if TYPE_CHECKING:
    from compiler.tune.task import Task


def task_columns(best: str) -> tuple[Column, ...]:
    """Return the columns of `task_row`; `best` heads the time with the best schedule."""
    return (
        Column("kernel", least=20),
        Column("calls", rank=3, number=True),
        Column("trials", rank=2, number=True),
        Column("untuned us", rank=1, number=True),
        Column(best, number=True),
        Column("ratio", number=True),
    )


def task_row(task: Task) -> tuple[str, ...]:
    """Return what is known of a task whose default was measured."""
    return (
        task.workload.split(" #")[0],
        str(task.calls),
        str(len(task.records)),
        f"{task.untuned * 1e6:.0f}",
        f"{task.total * 1e6:.0f}",
        f"{task.total / task.untuned:.2f}",
    )
