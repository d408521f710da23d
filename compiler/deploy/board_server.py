"""The servers behind `kiln board`: TVM's RPC server on a board, and the tracker that knows the boards.

Each runs in a process of its own, which leads a group: whatever ends the one who started it ends the whole
group, sessions with their hanging kernels included. A session that crashes costs the server nothing: TVM's
own loop ends then, and is begun again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from compiler.support.errors import UsageError

_START = 120.0
"""Seconds in which a server has to listen: it loads TVM."""

_PAUSE = 2.0
"""Seconds between two attempts to reach a tracker."""


@dataclass(frozen=True)
class ServerOptions:
    """What to serve.

    Attributes:
        host: the address to listen at.
        ports: to try, the first and the last.
        key: that boards of the kind have in the tracker; of no meaning for a tracker itself.
        tracker: host and port of the tracker; None to be one.
        known_as: the address by which the tracker's clients reach this machine; None for the one that the
            tracker sees.
    """

    host: str
    ports: tuple[int, int]
    key: str = ""
    tracker: tuple[str, int] | None = None
    known_as: str | None = None


@dataclass(frozen=True)
class Server:
    """A server at work: the port that it listens at, its process group, and what waits for its end."""

    port: int
    group: int
    wait: Callable[[], int]


@contextmanager
def serving(options: ServerOptions) -> Iterator[Server]:
    """Serve in another process until the end of the block.

    Raises:
        UsageError: it cannot listen there.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "compiler.deploy.board_server", json.dumps(asdict(options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        yield Server(_port(process), process.pid, process.wait)
    finally:
        _end_group(process.pid)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _port(process: subprocess.Popen[str]) -> int:
    """Return what a server says first: its port.

    Raises:
        UsageError: it says why it has none.
    """
    assert process.stdout is not None
    late = threading.Timer(_START, process.kill)
    late.start()
    line = process.stdout.readline()
    late.cancel()
    if not line:
        raise UsageError("the server did not start; run with --debug to see why")
    answer = json.loads(line)
    if "error" in answer:
        raise UsageError(answer["error"])
    return int(answer["port"])


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _main(text: str) -> None:
    data = json.loads(text)
    tracker = None if data["tracker"] is None else (data["tracker"][0], data["tracker"][1])
    options = ServerOptions(data["host"], tuple(data["ports"]), data["key"], tracker, data["known_as"])
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        listener = _listen(options)
    except UsageError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201  # this is how its starter hears it
        return
    serve = _serve_tracker if options.tracker is None and not options.key else _serve_board
    serve(listener, options)


def _end_with_starter() -> None:
    """End the group when nobody holds the other end of standard input any more."""
    # Python's own object for it would stay locked in the sessions that are forked meanwhile.
    while os.read(0, 1):
        pass
    _end_group(os.getpid())


def _listen(options: ServerOptions) -> socket.socket:
    first, last = options.ports
    try:
        family = socket.getaddrinfo(options.host, first, 0, socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UsageError(f"cannot listen at '{options.host}': {error.strerror or error}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in range(first, last + 1):
        try:
            listener.bind((options.host, port))
            listener.listen(16)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise UsageError(f"cannot listen at {options.host}:{port}: {error.strerror}") from error
        return listener
    ports = f"port {first} is" if first == last else f"ports {first} to {last} are"
    raise UsageError(f"cannot listen at {options.host}: its {ports} taken; give another one with --port")


def _ready(listener: socket.socket) -> int:
    port = int(listener.getsockname()[1])
    print(json.dumps({"port": port}), flush=True)  # noqa: T201  # this is how its starter hears it
    return port


def _serve_board(listener: socket.socket, options: ServerOptions) -> None:
    """Be TVM's RPC server for ever."""
    from tvm.rpc import server

    server.logger.setLevel("ERROR")
    # TVM's own gives up after a minute, or tries again without a pause.
    server.base.connect_with_retry = _connect_patiently
    home, port = os.getcwd(), _ready(listener)
    while True:
        try:
            server._listen_loop(listener, port, options.key, options.tracker, None, options.known_as)
        except Exception as error:
            # What a session leaves behind when it ends badly: TVM does not go on then.
            print(f"a session ended badly: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os.chdir(home)


def _connect_patiently(address: tuple[str, int], *others: Any) -> socket.socket:
    del others
    while True:
        try:
            return socket.create_connection(address)
        except OSError:
            time.sleep(_PAUSE)


def _serve_tracker(listener: socket.socket, options: ServerOptions) -> None:
    """Be TVM's tracker for ever."""
    del options
    try:
        from tvm.rpc import tracker
    except ImportError as error:
        text = f"a tracker needs {error.name}: pip install 'kiln-compiler[tune]'"
        print(json.dumps({"error": text}), flush=True)  # noqa: T201  # this is how its starter hears it
        return
    tracker.logger.setLevel("ERROR")
    _ready(listener)
    # The word that stops it is told to nobody.
    tracker._tracker_server(listener, os.urandom(16).hex())


if __name__ == "__main__":
    _main(sys.argv[1])
