"""Data folders that Kiln ships: targets/ and tuning_logs/.

In a checkout they lie beside the package, at the top; a wheel carries them inside it, under
``compiler/_data`` (setup.py puts them there).
"""

from __future__ import annotations

from pathlib import Path

from compiler.support.errors import InternalError

_PACKAGE = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path:
    """Return the shipped data folder `name` (``targets`` or ``tuning_logs``).

    Raises:
        InternalError: the installation lacks it.
    """
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise InternalError(
        f"expected the data folder '{name}' at '{places[0]}' or '{places[1]}', found neither: "
        "the installation is not complete; install kiln-compiler again"
    )
