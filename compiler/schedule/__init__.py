"""Schedules every kernel for the target."""

from compiler.schedule.apply import schedule
from compiler.schedule.kernel_record import KernelRecord

__all__ = ["KernelRecord", "schedule"]
