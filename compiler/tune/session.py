"""Sessions: the budget of a tuning is kept beside its log until it is spent, for a kill does not end it."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from compiler.support.files import atomic_path, make_folder
from compiler.tune.budget import Budget


@dataclass(frozen=True)
class Session:
    """A tuning that was begun and has not ended.

    Attributes:
        name: what its records say.
        trials: the most trials, None for any number.
        seconds: the most seconds, None for any number.
        ends: when it has to end, in seconds since 1970; None for any time.
    """

    name: str
    trials: int | None = None
    seconds: float | None = None
    ends: float | None = None

    def budget(self, spent: float) -> Budget:
        """Return the budget of the session after `spent` seconds of it."""
        left = None if self.ends is None else max(0.001, self.ends - time.time()) + spent
        seconds = [limit for limit in (self.seconds, left) if limit is not None]
        return Budget(self.trials, min(seconds) if seconds else None)


def begin_or_resume(log: Path, wanted: Session | None, default: Session) -> Session:
    """Return the session of `log`.

    One that was cut off goes on, with the limits of `wanted` if there are any. Else a new one begins.

    Raises:
        UsageError: nothing can be written beside the log.
    """
    path, before = _path(log), _read(_path(log))
    limits = wanted or before or default
    session = Session(
        before.name if before else uuid.uuid4().hex[:12], limits.trials, limits.seconds, limits.ends
    )
    make_folder(log.parent)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(asdict(session)), encoding="utf-8")
    return session


def end(log: Path) -> None:
    """End the session of `log`: the next one begins anew, and knows all its records."""
    _path(log).unlink(missing_ok=True)


def _path(log: Path) -> Path:
    return log.with_name(f"{log.name}.session")


def _read(path: Path) -> Session | None:
    """Return the session that was begun, None where there is none or its file is no such."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Session).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError):
        return None
