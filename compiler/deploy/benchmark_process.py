"""The benchmark's end of a worker process: start it, ask it, pause it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from compiler.deploy.peers.session import PeerError

BUILD_SECONDS = 900.0
"""How long a runtime may take to make itself ready."""


class WorkerError(PeerError):
    """A worker could not do what it was asked; `detail` is its traceback or the end of its log."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class WorkerProcess:
    """A runtime in a process of its own, paused whenever it is not asked to do something.

    Runtimes keep threads that wait for work by spinning; on a small machine they would take the cores of
    whoever is measured next.
    """

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._replies: queue.Queue[str | None] = queue.Queue()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "compiler.deploy.benchmark_worker", name, str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                env=_environment(folder, threads),
                # A group of its own: Ctrl-C reaches only the benchmark, which then ends the whole group.
                preexec_fn=os.setpgrp if os.name == "posix" else None,
            )  # fmt: skip
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Wake the worker, send `message`, wait for the answer and pause it again.

        Raises:
            WorkerError: it says so, it died, or it took more than `timeout` seconds.
        """
        self._signal("SIGCONT")
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            raise WorkerError(f"it took more than {timeout:.0f} s", self._tail()) from None
        except OSError:
            line = None
        self._signal("SIGSTOP")
        if line is None:
            raise WorkerError(f"its process {self._fate()}", self._tail())
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise WorkerError(str(reply["failed"]), str(reply.get("detail", "")))
        return reply

    def end(self) -> None:
        """End the worker and all that it started."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._signal("SIGKILL")
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _listen(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                self._replies.put(line)
        self._replies.put(None)

    def _signal(self, name: str) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, getattr(signal, name))

    def _fate(self) -> str:
        code = self._process.wait(timeout=10)
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def _tail(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-20:])


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment of a worker: the thread count for OpenMP, and caches inside `folder`.

    How threads wait is left as each runtime ships it: idle workers are paused, so it disturbs nobody.
    """
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TMPDIR": str(scratch),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "PYTHONWARNINGS": "ignore",
    }
