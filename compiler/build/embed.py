"""Files as a symbol of a library: the assembler includes them as they are, so they need no memory."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.build.memory_plan import ALIGNMENT
from compiler.target import Target


def embedding(target: Target, symbol: str, files: Sequence[str], hidden: bool = False) -> str:
    """Return a C file that defines `symbol` as the contents of `files`, one after the other.

    It has no C in it, only directives. A `hidden` symbol is seen in its own library alone.
    """
    if target.os == "macos":
        # Mach-O puts an underscore before every C name.
        start = [".section __TEXT,__const", f".globl _{symbol}", ".p2align 6", f"_{symbol}:"]
        end = []
    else:
        # x86-64 reaches 2 GiB around the code; ".lrodata" lies outside, so weights may be larger.
        section = '.lrodata,"al"' if target.arch == "x86_64" else '.rodata.kiln,"a"'
        start = [f".section {section},%progbits", f".globl {symbol}", f".type {symbol}, %object"]
        start += [f".hidden {symbol}"] if hidden else []
        start += [f".balign {ALIGNMENT}", f"{symbol}:"]
        end = [f".size {symbol}, . - {symbol}", ".text"]
    lines = [*start, *(f'.incbin "{name}"' for name in files), *end]
    quoted = "\n".join('    "{}\\n"'.format(line.replace('"', '\\"')) for line in lines)
    return f"__asm__(\n{quoted}\n);\n"
