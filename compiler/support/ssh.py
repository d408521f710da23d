"""Ports forwarded through ssh, for protocols that are plain text."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compiler.support.errors import UsageError
from compiler.support.files import private_folder

_LOOPBACK = "127.0.0.1"
_SECONDS = 120.0
"""For the connection: somebody may have to type a password."""

_END = 0.5
"""Seconds for ssh to end by itself."""


@contextmanager
def tunnel(there: str, local: Sequence[str] = (), remote: Sequence[str] = ()) -> Iterator[Path]:
    """Forward ports through ``ssh there``; yield its control socket, by which `forward` adds others.

    Args:
        there: ``USER@HOST``, or what ssh's configuration knows.
        local: ``PORT:HOST:PORT``: connections to a port of this machine go on from there.
        remote: the same in the other direction.

    Raises:
        UsageError: ssh is missing or fails, or a port is taken.
    """
    if there.startswith("-") or not there:
        raise UsageError(f"expected USER@HOST for ssh, got '{there}'")
    with private_folder() as folder:
        control = folder / "ssh"
        words = command(there, control, local, remote)
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            raise UsageError(f"expected to run `ssh`: {error.strerror or error}") from error
        try:
            _wait(process, words, there, control)
            yield control
        finally:
            process.terminate()
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()


def command(there: str, control: Path, local: Sequence[str], remote: Sequence[str]) -> list[str]:
    """Return the command line of a tunnel. Both ends listen on loopback only."""
    words = ["ssh", "-N", "-T", "-M", "-S", str(control), "-o", "ExitOnForwardFailure=yes"]
    words += ["-o", "ServerAliveInterval=15", "-o", "ControlPersist=no"]
    for flag, forwards in (("-L", local), ("-R", remote)):
        for each in forwards:
            words += [flag, f"{_LOOPBACK}:{each}"]
    return [*words, there]


def forward(there: str, control: Path, host: str, port: int) -> int:
    """Forward one more port of a tunnel: return the port of this machine from which it goes to `host`.

    Raises:
        OSError: the tunnel is closed.
    """
    own = free_port()
    words = ["ssh", "-S", str(control), "-O", "forward", "-L", f"{_LOOPBACK}:{own}:{host}:{port}", there]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise OSError(f"`{shlex.join(words)}` failed: {_last(done.stderr)}")
    return own


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[str], words: Sequence[str], there: str, control: Path) -> None:
    """Wait until the ports are forwarded."""
    check = ["ssh", "-S", str(control), "-O", "check", there]
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            text = process.stderr.read() if process.stderr is not None else ""
            raise UsageError(f"`{shlex.join(words)}` failed: {_last(text)}")
        if control.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise UsageError(f"`{shlex.join(words)}` was not connected after {_SECONDS:.0f} s")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
