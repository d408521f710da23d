"""Every error that Kiln raises on purpose.

    KilnError                what the user can mend; exit code 2
    ├── UsageError           a bad argument, an unknown name, a missing file
    ├── ModelError           the model cannot be loaded or imported
    │   └── CheckError       the imported model does not compute what PyTorch computes
    ├── TargetError          an unknown target or a wrong descriptor
    ├── BuildError           no code can be made for this target, or a tool failed
    ├── BundleError          a bundle that is damaged, edited or for another device
    ├── InputError           data of the wrong name, shape or dtype
    └── InternalError        a defect of Kiln's own; exit code 1

`KilnWarning` is what works, but not as well as it could.

A message says what was expected, what was got, where, and what to do. ``str(error)`` is what the
command line prints; it may span lines only where a list is the answer (unsupported operators).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KilnError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 2


class UsageError(KilnError):
    """A bad argument, an unknown name or a missing file."""


class ModelError(KilnError):
    """The model cannot be loaded or imported."""


class CheckError(ModelError):
    """The imported model does not compute what PyTorch computes."""


class TargetError(KilnError):
    """An unknown target or a wrong descriptor."""


class BuildError(KilnError):
    """No code can be made for this target, or a tool of the toolchain failed."""


class BundleError(KilnError):
    """A bundle is damaged, was edited, or was made for another device."""


class InputError(KilnError):
    """Data of the wrong name, shape or dtype."""


class InternalError(KilnError):
    """A defect of Kiln's own."""

    exit_code = 1


class KilnWarning(UserWarning):
    """Something that works, but not as well as it could; the text says what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to `word`, or ``""``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
