"""Reads assembly listings: which functions there are, which loops lie innermost, what these do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import tvm

from compiler.build.tile_functions import PIPELINE
from compiler.target import Target

_FUNCTION = re.compile(r"^([A-Za-z_][\w.$]*):")
_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s+([a-z][\w.]*)\s*(.*?)\s*(?:# .*|//.*)?$")
_BRANCH = re.compile(r"(j\w+|b|b\.\w+|cbn?z|tbn?z) (?:.* )?(\.L\w+)$")
_CALL = re.compile(r"(call\w*|blr?|svc) ")


@dataclass(frozen=True)
class Instruction:
    """One line of a listing: a mnemonic and its operands, as text."""

    name: str
    operands: str


@dataclass(frozen=True)
class Machine:
    """How one architecture's assembly says what a test asks, as regular expressions.

    `multiply` matches a multiply-add of whole vectors, `load` what fills a vector from memory or broadcasts,
    `vector` an operand in a floating-point register, `stack` an operand on the stack, `frame` the instruction
    that makes a frame pointer and `framed` an operand by way of it.
    """

    multiply: re.Pattern[str]
    load: re.Pattern[str]
    vector: re.Pattern[str]
    stack: re.Pattern[str]
    frame: re.Pattern[str]
    framed: re.Pattern[str]


_X86 = Machine(
    multiply=re.compile(r"(vfmadd(132|213|231)ps|vdpbf16ps|vpdpbusd) .*%[yz]mm"),
    load=re.compile(r"(vbroadcastss|vmov[au]ps) -?\w*\("),
    vector=re.compile(r"%[xyz]mm\d"),
    stack=re.compile(r"\(%rsp"),
    frame=re.compile(r"movq %rsp, %rbp"),
    framed=re.compile(r"\(%rbp"),
)
_ARM = Machine(
    multiply=re.compile(r"fmla v\d+\.4s"),
    load=re.compile(r"(ldr|ldur|ldp) [qsd]\d+|ld1r? |dup v\d+\.4s"),
    vector=re.compile(r"\b[qvsd]\d+\b"),
    stack=re.compile(r"\[sp\b"),
    frame=re.compile(r"(mov x29, sp|add x29, sp,)"),
    framed=re.compile(r"\[x29\b"),
)


def machine(target: Target) -> Machine:
    """Return how to read the listings for `target`."""
    return {"x86_64": _X86, "aarch64": _ARM}[target.arch]


@dataclass(frozen=True)
class Loop:
    """The instructions of one innermost loop; its function has a frame pointer if it is `framed`."""

    machine: Machine
    body: tuple[Instruction, ...]
    framed: bool

    def count(self, pattern: re.Pattern[str]) -> int:
        """Return how many instructions match."""
        return sum(bool(pattern.match(_text(each))) for each in self.body)

    @property
    def multiplies(self) -> int:
        """How many multiply-adds of whole vectors one round has."""
        return self.count(self.machine.multiply)

    @property
    def spills(self) -> list[str]:
        """What moves a vector to or from the stack."""
        return [
            _text(each)
            for each in self.body
            if self.machine.vector.search(each.operands) and self._on_stack(each.operands)
        ]

    @property
    def others(self) -> Counter[str]:
        """What works on vectors (or calls) and is neither a multiply-add, nor a load, nor a broadcast."""
        kinds = self.machine.multiply, self.machine.load
        return Counter(
            _text(each)
            for each in self.body
            if not any(kind.match(_text(each)) for kind in kinds)
            and (self.machine.vector.search(each.operands) or _CALL.match(_text(each)))
        )

    @property
    def branches(self) -> int:
        """How many branches there are, the one back to the start included."""
        return self.count(_BRANCH)

    def _on_stack(self, operands: str) -> bool:
        patterns = [self.machine.stack, *([self.machine.framed] if self.framed else [])]
        return any(pattern.search(operands) for pattern in patterns)


def _text(each: Instruction) -> str:
    return f"{each.name} {each.operands}"


def listing(mod: tvm.IRModule, target: Target) -> str:
    """Return the assembly of scheduled kernels, built for `target` as a bundle's are."""
    library = tvm.tirx.build(mod, target=target.tvm_target(), pipeline=PIPELINE)
    return str(library.inspect_source("s"))


def functions(text: str) -> dict[str, list[str]]:
    """Return the lines of each function of a listing, by its name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := _FUNCTION.match(line):
            lines = found.setdefault(match[1], [])
        else:
            lines.append(line)
    return found


def innermost_loops(lines: Sequence[str], target: Target) -> list[Loop]:
    """Return the loops of a function that have no loop inside: from a label to the branch back to it."""
    labels = {match[1]: at for at, line in enumerate(lines) if (match := _LABEL.match(line))}
    loops = set()
    parsed = [_instruction(line) for line in lines]
    for at, each in enumerate(parsed):
        match = _BRANCH.match(_text(each)) if each else None
        if match and labels.get(match[2], at) < at:
            loops.add((labels[match[2]], at))
    innermost = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    kind = machine(target)
    framed = any(each and kind.frame.match(_text(each)) for each in parsed)
    return [
        Loop(kind, tuple(each for each in parsed[first : last + 1] if each), framed)
        for first, last in sorted(innermost)
    ]


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    return Instruction(match[1], re.sub(r"\s+", " ", match[2])) if match else None
