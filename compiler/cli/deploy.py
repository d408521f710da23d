"""kiln deploy: a bundle becomes the current version on a board. kiln fleet: on many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli.columns import Column
from compiler.support.errors import UsageError

if TYPE_CHECKING:
    from compiler.deploy.install import Installed
    from compiler.deploy.remote import Place

_FOLDER = "~/kiln"
_COLUMNS = (
    Column("board"),
    Column("version"),
    Column("error", number=True),
    Column("threads", rank=2, number=True),
    Column("median ms", number=True),
    Column("90 %", rank=1, number=True),
    Column("99 %", rank=1, number=True),
    Column("peak MiB", number=True),
)

Bundle = Annotated[Path, typer.Argument(help="The bundle (.kiln), or with --rollback the model's name.")]
Runs = Annotated[int, typer.Option(min=0, help="How often to run it for the times; 0 measures none.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to measure with; by default all processors.")
]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="The port of the board's sshd.")]
Rollback = Annotated[
    bool, typer.Option("--rollback", help="Switch back to the version before the current one; copy nothing.")
]
Boards = Annotated[
    list[str] | None,
    typer.Option("--board", metavar="NAME", help="A target whose descriptor says how its board is reached."),
]


def deploy(
    bundle: Bundle,
    where: Annotated[str | None, typer.Argument(metavar="[USER@HOST[:FOLDER]]", help="The board.")] = None,
    board: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A target whose descriptor says how its board is reached."),
    ] = None,
    port: Port = None,
    runs: Runs = 50,
    threads: Threads = None,
    rollback: Rollback = False,
) -> None:
    """Copy a bundle to a board over ssh, prove it there, and make it the current version.

    On the board FOLDER/MODEL/current has the library, the header, the weights and a runner; FOLDER is ~/kiln
    by default. Whatever goes wrong, the version that was current stays so.

    For example:

    - `kiln deploy resnet18.kiln pi@raspberrypi.local`
    - `kiln deploy resnet18.kiln pi@raspberrypi.local:/opt/models --threads 4`
    - `kiln deploy resnet18.kiln pi@raspberrypi.local --rollback`
    """
    from compiler.deploy.install import install, roll_back

    (place,) = _places([where] if where else [], [board] if board else [], port, single=True)
    if rollback:
        name = _model_name(bundle)
        typer.echo(f"'{name}' on {place} is version {roll_back(name, place)} again")
        return
    _show([install(bundle, place, runs=runs, threads=threads)])


def fleet(
    bundle: Bundle,
    where: Annotated[
        list[str] | None, typer.Argument(metavar="[USER@HOST[:FOLDER]]...", help="The boards.")
    ] = None,
    board: Boards = None,
    port: Port = None,
    runs: Runs = 50,
    threads: Threads = None,
    rollback: Rollback = False,
    jobs: Annotated[int, typer.Option(min=1, help="Boards at the same time.")] = 8,
) -> None:
    """Deploy a bundle to many boards at once, and say of each what became of it.

    A board that fails keeps its version, and the others go on.

    For example:

    - `kiln fleet resnet18.kiln pi@kitchen.local pi@garage.local`
    """
    from concurrent.futures import ThreadPoolExecutor

    from compiler.deploy.install import Installed, install, roll_back
    from compiler.support.errors import KilnError
    from compiler.support.progress import note, stage

    places = _places(where or [], board or [], port, single=False)
    name = _model_name(bundle) if rollback else ""

    def one(place: Place) -> Installed | str | KilnError:
        try:
            return roll_back(name, place) if rollback else install(bundle, place, runs=runs, threads=threads)
        except KilnError as error:
            return error

    with stage(f"{len(places)} boards"), ThreadPoolExecutor(jobs) as pool:
        results = []
        for place, result in zip(places, pool.map(one, places), strict=True):
            note(f"{place}: {'failed' if isinstance(result, KilnError) else 'done'}")
            results.append(result)
    _show([each for each in results if isinstance(each, Installed)])
    for place, result in zip(places, results, strict=True):
        if isinstance(result, str):
            typer.echo(f"'{name}' on {place} is version {result} again")
    failed = [result for result in results if isinstance(result, KilnError)]
    for error in failed:
        typer.echo(f"failed: {error}", err=True)
    if failed:
        raise UsageError(f"{len(failed)} of {len(places)} boards failed, and keep what they had")


def _model_name(bundle: Path) -> str:
    """Return the name of a bundle's model on boards, or the name itself where no bundle is given."""
    if bundle.suffix != ".kiln":
        return str(bundle)
    from compiler.bundle import read
    from compiler.deploy.install import aot_of

    return aot_of(read(bundle)).name


def _places(where: Sequence[str], boards: Sequence[str], port: int | None, *, single: bool) -> list[Place]:
    """Return where to go.

    Raises:
        UsageError: nowhere, or a descriptor does not say.
    """
    from compiler.deploy.remote import parse_place

    places = [parse_place(text, _FOLDER, port) for text in where] + [_described(name) for name in boards]
    if not places or (single and len(places) > 1):
        raise UsageError(
            "expected a board: USER@HOST, or --board NAME of a target that says how it is reached"
        )
    return places


def place_of(text: str, port: int | None) -> Place:
    """Return the board that a target's name, or USER@HOST[:FOLDER], stands for.

    Raises:
        UsageError: it is neither.
    """
    from compiler.deploy.remote import parse_place
    from compiler.target import names

    return _described(text) if text in names() else parse_place(text, _FOLDER, port)


def _described(name: str) -> Place:
    from compiler.deploy.remote import Place
    from compiler.target import load

    board = load(name).board
    if board is None or board.transport != "ssh" or board.host is None:
        raise UsageError(
            f"the descriptor of '{name}' does not say how its board is reached: give it "
            "`board: {transport: ssh, host: ..., user: ..., folder: ...}`, or give USER@HOST"
        )
    there = f"{board.user}@{board.host}" if board.user else board.host
    return Place(there, board.folder, board.port)


def _show(installed: Sequence[Installed]) -> None:
    from rich.console import Console

    from compiler.cli.columns import show

    if installed:
        show(Console(highlight=False), _COLUMNS, [_row(each) for each in installed])


def _row(each: Installed) -> tuple[str, ...]:
    times = [each.median_ms, each.p90_ms, each.p99_ms]
    return (
        str(each.place),
        f"{each.version}{' (was there)' if each.known else ''}",
        f"{each.error:.2g}",
        str(each.threads or ""),
        *("" if time is None else f"{time:.3f}" for time in times),
        "" if each.peak_mib is None else f"{each.peak_mib:.1f}",
    )
