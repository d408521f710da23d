"""Schedules every kernel for the target."""

from compiler.schedule.apply import KernelRecord, schedule

__all__ = ["KernelRecord", "schedule"]
