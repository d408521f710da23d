"""One process that answers questions one by one, and can be killed at any of them."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

from compiler.support.without_torch import without_torch

START = 120.0
"""Seconds that a new process may take until it is ready: it loads TVM."""


class Process:
    """A new process; it begins with ``begin(*arguments)``, a function of a module."""

    def __init__(self, begin: Callable[..., None], *arguments: Any) -> None:
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_begin, initargs=(pickle.dumps((begin, arguments)),)
        )
        self._pid = self._pool.submit(os.getpid)

    @property
    def ready(self) -> Future[int]:
        """Its number, once it has begun."""
        return self._pid

    def submit(self, question: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Ask something: its answer is an exception if the process died."""
        try:
            return self._pool.submit(question, *arguments)
        except BrokenProcessPool as error:  # it died between two questions
            broken: Future[Any] = Future()
            broken.set_exception(error)
            return broken

    def end(self) -> None:
        """Kill the process: it may hang, or be dead already."""
        if self._pid.done() and not self._pid.exception():
            with suppress(ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGKILL)
        self._pool.shutdown(cancel_futures=True)


def _begin(pickled: bytes) -> None:
    """Begin without torch, which TVM would import as soon as anything of it is named."""
    with without_torch():
        begin, arguments = pickle.loads(pickled)
        begin(*arguments)
