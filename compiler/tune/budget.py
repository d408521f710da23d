"""Budgets: how long to go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from compiler.support.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """The most trials, and the most seconds; None for no limit."""

    trials: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise UsageError(f"expected more than 0 {name} to tune, got {value:g}")

    def is_spent(self, trials: int, seconds: float) -> bool:
        """Tell whether that many trials, or seconds, are all there were."""
        return (self.trials is not None and trials >= self.trials) or (
            self.seconds is not None and seconds >= self.seconds
        )

    def has(self, trials: int, seconds: float) -> bool:
        """Tell whether it is at least so many trials and seconds."""
        return (self.trials is None or self.trials >= trials) and (
            self.seconds is None or self.seconds >= seconds
        )

    def trials_left(self, trials: int) -> int | None:
        """Return how many trials may follow `trials`; None for any number."""
        return None if self.trials is None else max(0, self.trials - trials)

    def seconds_left(self, trials: int, seconds: float) -> float | None:
        """Return how long it will take until the end, after `trials` in `seconds`; None if nobody knows."""
        ends = []
        if self.seconds is not None:
            ends.append(self.seconds - seconds)
        if self.trials is not None and trials:
            ends.append(seconds / trials * (self.trials - trials))
        return max(0.0, min(ends)) if ends else None


def seconds_until(clock: str, now: datetime) -> float:
    """Return the seconds from `now` until the clock shows `clock`, such as ``07:00``, today or tomorrow.

    Raises:
        UsageError: it is no time of day.
    """
    try:
        time = datetime.strptime(clock, "%H:%M").time()
    except ValueError as error:
        raise UsageError(f"expected a time of day such as 07:00, got '{clock}'") from error
    end = now.replace(hour=time.hour, minute=time.minute, second=0, microsecond=0)
    if end <= now:
        end += timedelta(days=1)
    return (end - now).total_seconds()
