"""TVM's tracker, as its clients see it: which boards there are, and which one is free.

The protocol is that of `tvm.rpc.tracker` (0.27): each side sends a magic number, then messages of JSON,
before each its length in 32 bits. It is spoken here without TVM, which takes seconds to load and would wait
for an answer for ever.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from compiler.support.errors import UsageError

PORT = 9190
"""The tracker's usual port."""

_MAGIC = 0x2F271
_OK, _REQUEST, _SUMMARY = 0, 4, 6
_SECONDS = 10.0
"""For an answer that needs no waiting."""


@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address(text: str, port: int = PORT) -> Address:
    """Read ``HOST`` or ``HOST:PORT``.

    Raises:
        UsageError: it is none.
    """
    host, colon, number = text.rpartition(":")
    if not colon:
        return Address(text, port)
    if not host or not number.isdigit() or not 1 <= int(number) <= 65535:
        raise UsageError(f"expected HOST:PORT such as 127.0.0.1:{port}, got '{text}'")
    return Address(host, int(number))


@dataclass(frozen=True)
class Queue:
    """Boards of one key: how many there are, how many are free, and how many requests wait for one."""

    key: str
    total: int
    free: int
    waiting: int


@dataclass(frozen=True)
class Offer:
    """A board that the tracker gives to who asked: where it is, and the word that opens it once."""

    address: Address
    word: str


def queues(where: Address) -> list[Queue]:
    """Return the boards that the tracker knows.

    Raises:
        OSError: it does not answer, or what does is no tracker.
    """
    with _connected(where) as stream:
        _send(stream, [_SUMMARY])
        summary = _answer(stream)
    total = Counter(info.get("key", "").partition(":")[2] for info in summary["server_info"])
    asked = summary["queue_info"]
    nothing = {"free": 0, "pending": 0}
    return [
        Queue(key, total[key], asked.get(key, nothing)["free"], asked.get(key, nothing)["pending"])
        for key in sorted({*total, *asked})
        if total[key] or asked.get(key, nothing)["pending"]
    ]


def count(where: Address, key: str) -> int:
    """Return how many boards of that key there are, free or not.

    Raises:
        OSError: the tracker does not answer.
    """
    return sum(queue.total for queue in queues(where) if queue.key == key)


def known_boards(where: Address, key: str) -> int:
    """Return how many boards of that key there are, at least one.

    Raises:
        UsageError: the tracker does not answer, or knows none.
    """
    found = reachable(where)
    total = sum(queue.total for queue in found if queue.key == key)
    if not total:
        others = ", ".join(f"'{queue.key}'" for queue in found if queue.total) or "none at all"
        raise UsageError(
            f"the tracker at {where} knows no board '{key}', but {others}; "
            f"run `kiln board serve --key {key} --tracker {where}` on one"
        )
    return total


def reachable(where: Address) -> list[Queue]:
    """Return the boards that the tracker knows; the same as `queues` for a user.

    Raises:
        UsageError: it does not answer.
    """
    try:
        return queues(where)
    except OSError as error:
        raise UsageError(
            f"no tracker answers at {where}: {error.strerror or error}; start one with `kiln board tracker`"
        ) from error


def request(where: Address, key: str) -> Offer:
    """Wait for a board of that key, for as long as it takes.

    Raises:
        OSError: the tracker does not answer, or goes away.
    """
    with _connected(where) as stream:
        _send(stream, [_REQUEST, key, "", 1])
        stream.settimeout(None)
        host, port, word = _answer(stream)
    return Offer(Address(host, port), word)


def _connected(where: Address) -> socket.socket:
    stream = socket.create_connection((where.host, where.port), _SECONDS)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.sendall(struct.pack("<i", _MAGIC))
        if struct.unpack("<i", _received(stream, 4))[0] != _MAGIC:
            raise OSError("what answers is no tracker")
    except BaseException:
        stream.close()
        raise
    return stream


def _send(stream: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    stream.sendall(struct.pack("<i", len(data)) + data)


def _answer(stream: socket.socket) -> Any:
    (size,) = struct.unpack("<i", _received(stream, 4))
    try:
        code, value = json.loads(_received(stream, size))
    except ValueError as error:
        raise OSError("what answers is no tracker") from error
    if code != _OK:
        raise OSError(f"the tracker refuses with code {code}")
    return value


def _received(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.recv(min(size - len(data), 1 << 16))
        if not piece:
            raise OSError("the connection was closed")
        data += piece
    return data
