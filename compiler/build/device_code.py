"""The serialized form of TVM's modules: what a library holds beside its machine code.

Everything is little endian. A string or an array starts with its length as u64.

    library binary = u64 size, import tree, {kind, [u64 size, module]} for each module
    import tree    = u64[] first child of each module (and the end), u64[] children
    device module  = format, u64 count of kernels, kernels, code
    code           = a string, or on Metal u64 count of kernels, {name, string} for each
    kernel         = key, name, {u8 code, u8 bits, u16 lanes}[] arguments, string[] launch tags, i32[] extras

The kind ``_lib`` stands for the machine code itself and has no bytes. Read in TVM's ``codegen.cc`` and
``metadata.h``; the wheel of TVM 0.27 writes it so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from compiler.support.errors import InternalError

MACHINE_CODE = "_lib"
_TYPE_NAMES = {0: "int", 1: "uint", 2: "float", 3: "handle", 4: "bfloat", 6: "bool"}


@dataclass(frozen=True)
class Kernel:
    """One entry of a device module's function table.

    `arguments` are dtypes in TVM's spelling (``handle`` is a pointer); `launch_tags` name the launch
    extents that follow the arguments of a call (``blockIdx.x``, ``threadIdx.x``).
    """

    name: str
    arguments: tuple[str, ...]
    launch_tags: tuple[str, ...]


@dataclass(frozen=True)
class DeviceModule:
    """The kernels of one accelerator, in `format` (``cuda``, ``fatbin``, ``cl``, ``metal``).

    `source` is their text as TVM generated it; `table` and `payload` are the function table and the code,
    serialized.
    """

    kind: str
    format: str
    kernels: tuple[Kernel, ...]
    source: str
    table: bytes
    payload: bytes

    def with_code(self, format: str, code: bytes) -> DeviceModule:
        """Return the same kernels with other code, such as the source compiled."""
        return replace(self, format=format, payload=_string(code))

    def to_bytes(self) -> bytes:
        """Return the serialized module, without its kind."""
        return _string(self.format.encode()) + self.table + self.payload


@dataclass(frozen=True)
class LibraryBinary:
    """The modules of a library: `firsts` and `children` are the import tree, in CSR form.

    `modules` are pairs of kind and bytes; bytes are ``None`` for the machine code.
    """

    firsts: tuple[int, ...]
    children: tuple[int, ...]
    modules: tuple[tuple[str, bytes | None], ...]

    def under_root(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the import tree with a new root before all modules, which imports the first of them."""
        return (0, *(first + 1 for first in self.firsts)), (1, *(child + 1 for child in self.children))


def read_library(data: bytes) -> LibraryBinary:
    """Return the modules of a library binary.

    Raises:
        InternalError: TVM writes another format than this module knows.
    """
    reader = _Reader(data)
    reader.number("<Q")
    firsts, children = reader.numbers(), reader.numbers()
    modules: list[tuple[str, bytes | None]] = []
    for _ in range(len(firsts) - 1):
        kind = reader.string().decode()
        modules.append((kind, None if kind == MACHINE_CODE else reader.string()))
    reader.expect_end()
    return LibraryBinary(firsts, children, tuple(modules))


def read_device_module(kind: str, data: bytes) -> DeviceModule:
    """Return the device module in `data`.

    Raises:
        InternalError: TVM writes another format than this module knows.
    """
    reader = _Reader(data)
    format = reader.string().decode()
    start = reader.at
    kernels = tuple(_kernel(reader) for _ in range(reader.number("<Q")))
    table, payload = data[start : reader.at], data[reader.at :]
    source = _sources(reader) if kind == "metal" else reader.string().decode()
    reader.expect_end()
    return DeviceModule(kind, format, kernels, source, table, payload)


def write_tree(firsts: tuple[int, ...], children: tuple[int, ...]) -> bytes:
    """Return a serialized import tree."""
    return b"".join(struct.pack(f"<{1 + len(part)}Q", len(part), *part) for part in (firsts, children))


def write_module(kind: str, data: bytes | None) -> bytes:
    """Return a module with its kind, as it stands in a library binary."""
    return _string(kind.encode()) + (b"" if data is None else _string(data))


def _sources(reader: _Reader) -> str:
    """Return the sources of all kernels, which Metal keeps apart, in one text."""
    pairs = [(reader.string().decode(), reader.string().decode()) for _ in range(reader.number("<Q"))]
    return "\n".join(f"// Function: {name}\n{text}" for name, text in pairs)


def _kernel(reader: _Reader) -> Kernel:
    reader.string()  # the key, the same as the name
    name = reader.string().decode()
    arguments = tuple(_type(*struct.unpack("<BBH", reader.take(4))) for _ in range(reader.number("<Q")))
    tags = tuple(reader.string().decode() for _ in range(reader.number("<Q")))
    reader.take(4 * reader.number("<Q"))
    return Kernel(name, arguments, tags)


def _type(code: int, bits: int, lanes: int) -> str:
    name = _TYPE_NAMES.get(code, f"type{code}_")
    if name in ("handle", "bool"):
        return name
    return f"{name}{bits}" + (f"x{lanes}" if lanes > 1 else "")


def _string(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


class _Reader:
    """Reads a serialized stream from its start."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise InternalError(
                f"expected {size} more bytes of a serialized TVM module at {self.at}, "
                f"got {len(self.data) - self.at}: this TVM writes a format that Kiln does not know"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def numbers(self) -> tuple[int, ...]:
        count = self.number("<Q")
        return struct.unpack(f"<{count}Q", self.take(8 * count))

    def string(self) -> bytes:
        return self.take(self.number("<Q"))

    def expect_end(self) -> None:
        if self.at != len(self.data):
            raise InternalError(
                f"expected a serialized TVM module to end at {self.at}, it has {len(self.data)} bytes: "
                "this TVM writes a format that Kiln does not know"
            )
