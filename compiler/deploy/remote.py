"""Commands and files on another machine, over ssh: all that a board needs are sshd, a shell and tar."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from compiler.support.errors import UsageError
from compiler.support.files import private_folder

SSH = "KILN_SSH"
"""The variable that names another ssh, or options of it: ``ssh -F my.config``."""

PREFIX = ""
"""What every script begins with; tests have a board do otherwise."""

_UNREACHABLE = 255
"""What ssh exits with where it fails itself; any other code is the command's."""

_CONNECT = 10
"""Seconds until a machine that does not answer counts as unreachable."""

_ADDRESS = re.compile(r"(?:[\w.-]+@)?(?:\[[\w:.%-]+\]|[\w.-]+)")
_KEEP = 10 * 60
"""Seconds that a connection which nobody uses stays, should this process be killed."""


@dataclass(frozen=True)
class Place:
    """Where on which machine: `there` as ssh takes it, `port` of its sshd, the `folder` on it."""

    there: str
    folder: str
    port: int | None = None

    def __str__(self) -> str:
        return self.there if self.port is None else f"{self.there} (port {self.port})"


def parse_place(text: str, folder: str, port: int | None = None) -> Place:
    """Read ``[user@]host[:folder]``; `folder` is the default.

    Raises:
        UsageError: it is none.
    """
    found = _ADDRESS.match(text)
    there = found[0] if found else ""
    rest = text[len(there) :]
    if not there or there.startswith("-") or (rest and not rest.startswith(":")):
        raise UsageError(f"expected a board as USER@HOST or USER@HOST:FOLDER, got '{text}'")
    return Place(there.replace("[", "").replace("]", ""), rest[1:] or folder, port)


@dataclass(frozen=True)
class Done:
    """What a command on the other machine gave."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line that it said."""
        lines = [line.strip() for line in f"{self.out}\n{self.err}".splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


class Remote:
    """A connection to a machine, shared by all commands on it."""

    def __init__(self, place: Place, control: Path) -> None:
        """Have ssh's shared connection at the socket `control`; nothing is connected yet."""
        self.place = place
        self._words = [
            *shlex.split(os.environ.get(SSH, "ssh")),
            "-T",
            "-o",
            f"ConnectTimeout={_CONNECT}",
            "-o",
            "ServerAliveInterval=15",
        ]
        self._words += ["-o", "ControlMaster=auto", "-o", f"ControlPath={control}"]
        self._words += ["-o", f"ControlPersist={_KEEP}"]
        self._words += ["-p", str(place.port)] if place.port is not None else []

    def run(self, script: str, stdin: io.IOBase | None = None, seconds: float | None = None) -> Done:
        """Run a POSIX shell's `script` there.

        Raises:
            UsageError: the machine cannot be reached, or the connection breaks.
        """
        words = [*self._words, self.place.there, f"sh -c {shlex.quote(PREFIX + script)}"]
        # A shared connection keeps the pipes of who made it: its output goes to files.
        with TemporaryFile() as out, TemporaryFile() as err:
            try:
                code = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL if stdin is None else stdin,  # type: ignore[arg-type]
                    stdout=out,
                    stderr=err,
                    timeout=seconds,
                    check=False,
                ).returncode
            except OSError as error:
                raise UsageError(f"expected to run `ssh`: {error.strerror or error}") from error
            except subprocess.TimeoutExpired as error:
                raise UsageError(f"{self.place} did not answer for {seconds:.0f} s") from error
            done = Done(code, _text(out), _text(err))
        if code == _UNREACHABLE:
            raise UsageError(f"cannot reach {self.place}: {_reason(done.err)}")
        return done

    def must(self, script: str, what: str) -> str:
        """Run a `script` there and return what it wrote; `what` says what it is for.

        Raises:
            UsageError: the machine cannot be reached, or the script fails.
        """
        done = self.run(script)
        if done.code != 0:
            raise UsageError(f"{self.place}: cannot {what}: {done.last}")
        return done.out

    def send(self, files: Mapping[str, Path], folder: str) -> None:
        """Copy `files` into `folder` there, by their names in it; those that end in ``-run`` become programs.

        Raises:
            UsageError: the machine cannot be reached, or has no room.
        """
        with TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for name, path in files.items():
                    info = tarfile.TarInfo(name)
                    info.size, info.mode = path.stat().st_size, 0o755 if name.endswith("-run") else 0o644
                    with path.open("rb") as stream:
                        tar.addfile(info, stream)
            archive.seek(0)
            done = self.run(f"cd {shlex.quote(folder)} && tar xf -", archive)
        if done.code != 0:
            raise UsageError(f"{self.place}: cannot copy to '{folder}': {done.last}")

    def fetch(self, folder: str, to: Path) -> None:
        """Copy the plain files of a `folder` there into the folder `to`.

        Raises:
            UsageError: the machine cannot be reached, or what it sends is no archive of plain files.
        """
        words = [*self._words, self.place.there, f"cd {shlex.quote(folder)} && tar cf - ."]
        with TemporaryFile() as archive:
            code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=archive, check=False).returncode
            archive.seek(0)
            if code != 0:
                raise UsageError(f"{self.place}: cannot copy from '{folder}'")
            with tarfile.open(fileobj=archive) as tar:
                for member in tar.getmembers():
                    source = tar.extractfile(member) if member.isfile() else None
                    if source is not None:
                        (to / Path(member.name).name).write_bytes(source.read())

    def close(self) -> None:
        """End the shared connection."""
        words = [*self._words, "-O", "exit", self.place.there]
        null = subprocess.DEVNULL
        with suppress(OSError):
            subprocess.run(words, stdin=null, stdout=null, stderr=null, check=False)


@contextmanager
def connected(place: Place) -> Iterator[Remote]:
    """Yield a connection to a machine, closed after the block.

    Raises:
        UsageError: it cannot be reached.
    """
    with private_folder() as folder:
        remote = Remote(place, folder / "ssh")
        try:
            remote.run("true")
            yield remote
        finally:
            remote.close()


def _text(stream: io.IOBase) -> str:
    stream.seek(0)
    return str(stream.read().decode(errors="replace"))


def _reason(text: str) -> str:
    """Return what ssh says of its failure; it may say other things, too."""
    lines = [line.strip().removeprefix("ssh: ") for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Warning:", "debug", "Pseudo-"))]
    return telling[-1] if telling else "ssh gives no reason"
