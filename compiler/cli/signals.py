"""Ctrl-C and termination: stop soon, and leave nothing half-written.

A signal raises `Stopped` in the main thread as soon as Python runs there again. Code generation is one
long call outside Python, so a second thread waits for the same signal: if the program has not ended
`PATIENCE` seconds later, or at the second signal, it removes what is unfinished and ends the process.
Who has something to write first says so by `finishing`, and has more time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

PATIENCE = 1.0
FINISHING = 60.0
"""Seconds for who has something to write first."""

_LOOK = 0.05
"""Seconds between two looks at whether somebody has."""

_finishing = threading.Event()
_NAMES = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminated (the terminal is gone)"}
_SAYS = {int(getattr(signal, name)): text for name, text in _NAMES.items() if hasattr(signal, name)}


class Stopped(BaseException):
    """A signal asks the program to end; its text is what to tell the user."""

    def __init__(self, number: int) -> None:
        super().__init__(_SAYS[number])
        self.exit_code = 128 + number


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Have the program wait for the block after a signal; a second one ends it nevertheless."""
    _finishing.set()
    try:
        yield
    finally:
        _finishing.clear()


@contextlib.contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Raise `Stopped` inside the block when a signal asks for the end, and see to it that it comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ears, mouth = socket.socketpair()
    ears.setblocking(True)
    mouth.setblocking(False)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ears, over), daemon=True)
    before = {number: signal.getsignal(number) for number in _SAYS}
    wakeup = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    heard: list[int] = []

    def raise_once(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt the cleaning up; the watcher sees to it.
        heard.append(number)
        if len(heard) == 1:
            raise Stopped(number)

    watcher.start()
    try:
        for number, handler in before.items():
            # What the parent process told us to ignore (nohup) stays ignored.
            if handler is not signal.SIG_IGN:
                signal.signal(number, raise_once)
        yield
    except Exception as error:
        # C++ that calls Python turns `Stopped` into an error of its own.
        if heard:
            raise Stopped(heard[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        over.set()
        signal.set_wakeup_fd(wakeup)
        mouth.close()
        watcher.join()
        ears.close()


def _watch(ears: socket.socket, over: threading.Event) -> None:
    """Wait for a signal, then for the end of the program; end it by force if that does not come."""
    first = _next_signal(ears)
    if first is None:
        return
    begin = patient = time.monotonic()
    ears.settimeout(_LOOK)
    while (now := time.monotonic()) - patient < PATIENCE:
        if _finishing.is_set() and now - begin < FINISHING:
            patient = now
        with contextlib.suppress(TimeoutError):
            if _next_signal(ears) is None:
                return
            break
    if over.is_set():
        return
    from compiler.support.files import remove_unfinished

    remove_unfinished()
    with contextlib.suppress(OSError, ValueError):
        print(_SAYS[first], file=sys.stderr, flush=True)
    os._exit(128 + first)


def _next_signal(ears: socket.socket) -> int | None:
    """Return the next signal that asks for the end; None when the program is over."""
    while data := ears.recv(1):
        if data[0] in _SAYS:
            return data[0]
    return None
