"""Schedules every kernel for the target."""

from compiler.schedule.apply import schedule
from compiler.schedule.record import KernelRecord

__all__ = ["KernelRecord", "schedule"]
