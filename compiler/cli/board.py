"""kiln board: boards that `kiln tune` measures on, and the tracker that knows them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from compiler.cli.columns import Column
from compiler.support.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Serve boards to `kiln tune`: `kiln board serve` on each, one tracker that knows them.\n\n"
    "For example: `kiln board list --tracker 127.0.0.1:9190`",
)

_COLUMNS = (
    Column("key", least=12),
    Column("total", number=True),
    Column("free", number=True),
    Column("waiting", number=True),
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")

Host = Annotated[
    str, typer.Option(help="The address to listen at. What listens runs code for whoever reaches it.")
]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="The port to listen at; by default the first free one.")
]
Tracker = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where the tracker is, as seen from --ssh if that is given.")
]
Ssh = Annotated[
    str | None,
    typer.Option(
        metavar="USER@HOST", help="Reach the tracker through ssh: nothing else leaves this machine."
    ),
]
_TRACKER = "127.0.0.1:9190"


@app.command("serve")
def serve(
    key: Annotated[str, typer.Option(help="The kind of board: what `kiln tune --board` asks for.")] = "host",
    tracker: Tracker = _TRACKER,
    host: Host = "127.0.0.1",
    port: Port = None,
    ssh: Ssh = None,
) -> None:
    """Run TVM's RPC server on a board, until Ctrl-C: the tracker gives it to who asks for its key.

    For example:

    - `kiln board serve --key rpi4 --ssh me@workstation` from a board, through ssh
    - `kiln board serve --key rpi4 --tracker 192.168.1.5:9190 --host 0.0.0.0` in a network that you trust
    """
    from compiler.deploy.board_server import ServerOptions, serving
    from compiler.support.ssh import free_port, tunnel
    from compiler.tune.tracker import address, queues

    there = address(tracker)
    if not key or any(letter in key for letter in ": \t\n"):
        raise UsageError(f"expected a key without spaces and colons, got '{key}'")
    if ssh is None and host in _LOOPBACK and there.host not in _LOOPBACK:
        raise UsageError(
            f"who asks the tracker at {there} cannot reach this board at {host}: give --ssh USER@HOST, or "
            "--host 0.0.0.0 in a network that you trust"
        )
    nearby = (there.host, there.port) if ssh is None else ("127.0.0.1", free_port())
    known_as = "127.0.0.1" if ssh is not None else None if host in _ANY else host
    ports = (9090, 9189) if port is None else (port, port)
    with ExitStack() as stack:
        server = stack.enter_context(serving(ServerOptions(host, ports, key, nearby, known_as)))
        if ssh is not None:
            local, remote = f"{nearby[1]}:{there}", f"{server.port}:127.0.0.1:{server.port}"
            stack.enter_context(tunnel(ssh, [local], [remote]))
        _warn(host, server.port)
        through = "" if ssh is None else f" through {ssh}"
        typer.echo(f"board '{key}' listens at {host}:{server.port} for the tracker at {there}{through}")
        try:
            queues(address(f"{nearby[0]}:{nearby[1]}"))
        except OSError as error:
            typer.echo(
                f"no tracker answers there yet ({error.strerror or error}): it is tried again", err=True
            )
        raise UsageError(f"the server ended with exit code {server.wait()}")


@app.command("tracker")
def tracker_(host: Host = "127.0.0.1", port: Port = None) -> None:
    """Run TVM's tracker, until Ctrl-C: boards tell it that they are there, and `kiln tune` asks it for them.

    For example: `kiln board tracker`, then on boards `kiln board serve --key rpi4 --ssh me@workstation`
    """
    from compiler.deploy.board_server import ServerOptions, serving

    with serving(ServerOptions(host, (9190, 9289) if port is None else (port, port))) as server:
        _warn(host, server.port)
        typer.echo(f"tracker listens at {host}:{server.port}")
        raise UsageError(f"the tracker ended with exit code {server.wait()}")


@app.command("list")
def list_(tracker: Tracker = _TRACKER, ssh: Ssh = None) -> None:
    """Show the boards that a tracker knows: by key, all of them, the free ones, and who waits for one.

    For example: `kiln board list --tracker 127.0.0.1:9190`
    """
    from rich.console import Console

    from compiler.cli.columns import show
    from compiler.support.ssh import free_port, tunnel
    from compiler.tune.tracker import Address, address, reachable

    where = address(tracker)
    with ExitStack() as stack:
        if ssh is not None:
            own = free_port()
            stack.enter_context(tunnel(ssh, [f"{own}:{where}"]))
            where = Address("127.0.0.1", own)
        found = reachable(where)
    if not found:
        typer.echo(f"the tracker at {where} knows no board yet")
        return
    rows = [(queue.key, *map(str, (queue.total, queue.free, queue.waiting))) for queue in found]
    show(Console(highlight=False), _COLUMNS, rows)


def _warn(host: str, port: int) -> None:
    if host not in _LOOPBACK:
        text = f"warning: whoever reaches {host}:{port} can run code here, and nothing is encrypted"
        typer.echo(text, err=True)
