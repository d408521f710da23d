"""The C of an ahead-of-time library: a header for who uses it, and a file that calls its kernels in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from compiler.build.memory_plan import ALIGNMENT, aligned
from compiler.build.program import Place, Program, Step, TensorSpec
from compiler.support.errors import BuildError
from compiler.support.signature import Levels

RUNTIME = Path(__file__).parent / "runtime"
"""Templates, and C that is the same for all models."""

_RANK = 8
"""The most dimensions of an input or output."""

_ROW = 32
"""Bytes of an array in a line of C."""

_C_TYPES = {
    "float32": "float", "float64": "double", "float16": "uint16_t", "bfloat16": "uint16_t",
    "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t",
    "int32": "int32_t", "uint32": "uint32_t", "int64": "int64_t", "uint64": "uint64_t", "bool": "uint8_t",
}  # fmt: skip
"""C has no type for some: there are their bits."""


@dataclass(frozen=True)
class Names:
    """What C calls things.

    Attributes:
        model: the prefix of all names, see `identifiers`.
        inputs: in order, the same.
        outputs: in order, the same.
        layers: what the nodes are that steps are named by.
        about: sentences for the head of the header.
        cpu: what the code is for, in words.
        features: that it needs, see `compiler.build.cpu_checks`.
        levels: what the integers of inputs and outputs stand for, by their names; numbers have none.
    """

    model: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    layers: Mapping[str, str] = field(default_factory=dict)
    about: Sequence[str] = ()
    cpu: str = ""
    features: Sequence[str] = ()
    levels: Mapping[str, Levels] = field(default_factory=dict)

    def layer(self, step: Step) -> str:
        """Return what a step computes of the user's model, empty if that is not known."""
        return self.layers.get(step.layer, step.layer)

    def kernel(self, name: str) -> str:
        """Return the name of a kernel's C function."""
        return f"{self.model}_kernel_{name}"


_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        alignas alignof auto bool break case catch char class const constexpr continue default delete do
        double else enum explicit export extern false float for friend goto if inline int long mutable
        namespace new nullptr operator private protected public register restrict return short signed sizeof
        static struct switch template this throw true try typedef typename union unsigned using virtual void
        volatile while model main
        """,
    )
)
"""Words of C and C++ that are no names, and two that stand for something already."""


def identifiers(names: Sequence[str]) -> list[str]:
    """Return different names for C that are as near to `names` as it allows."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        word = f"_{word}" if not word or word[0].isdigit() or word in _RESERVED else word
        taken = sum(re.fullmatch(rf"{re.escape(word)}(_\d+)?", each) is not None for each in found)
        found.append(f"{word}_{taken}" if word in found else word)
    return found


def c_type(dtype: str) -> str:
    """Return the C type of a tensor's elements.

    Raises:
        BuildError: there is none.
    """
    if dtype not in _C_TYPES:
        raise BuildError(f"expected tensors of {', '.join(_C_TYPES)}, got {dtype}")
    return _C_TYPES[dtype]


def header(program: Program, names: Names, inside: bool) -> str:
    """Return ``MODEL.h``; the weights are `inside` of the library, or in a file."""
    return _filled(
        "model.h.in",
        names,
        about="".join(f" * {line}\n" for line in names.about),
        alignment=ALIGNMENT,
        arena=program.plan.size,
        arguments=", ".join([*names.inputs, *names.outputs]),
        inputs=_described(program, program.inputs, names.inputs, names.levels),
        outputs=_described(program, program.outputs, names.outputs, names.levels),
        rank=_RANK,
        scratch=aligned(program.scratch),
        signature=_signature(program, names),
        sizes=_sizes_described(program, names),
        weights=program.weight_bytes,
        where="" if inside else f", which are in {names.model}.weights",
    )


def source(program: Program, names: Names, digest: bytes, inside: bool) -> str:
    """Return ``MODEL.c``; it includes the runtime's header and ``MODEL.h``.

    `digest` is the SHA-256 of the weights, which are `inside` of the library, or in a file.
    """
    return _filled(
        "model.c.in",
        names,
        copies=_copies(program, names.model),
        cpu=names.cpu,
        extents=_extents(program, names),
        rank=_RANK,
        size_count=len(program.sizes),
        size_table=_size_table(program),
        digest=", ".join(map(str, digest)),
        feature_count=len(names.features),
        features=", ".join(names.features) or "{0}",
        input_count=len(program.inputs),
        input_table=_table(program.inputs, names.inputs, names.levels),
        inputs=", ".join(names.inputs),
        output_count=len(program.outputs),
        output_table=_table(program.outputs, names.outputs, names.levels),
        outputs=", ".join(names.outputs),
        prototypes=_prototypes(program, names),
        signature=_signature(program, names),
        staging=", ".join(map(str, program.staging)),
        step_count=len(program.steps),
        step_table=_step_table(program, names),
        steps=_steps(program, names),
        value_table=_value_table(program),
        weights_declared=f"extern const unsigned char {names.model}_weights[];\n" if inside else "",
        weights_inside=f"{names.model}_weights" if inside else "NULL",
    )


def runner(names: Names, tolerance: float) -> str:
    """Return the C of ``MODEL-run``; outputs may be off by `tolerance`, relative to their range."""
    return _filled("model_run.c.in", names, tolerance=repr(tolerance))


def weights_in_c(model: str, data: bytes) -> str:
    """Return the C that defines the weights as an array: large for a large model, but for any compiler."""
    rows = (", ".join(map(str, data[at : at + _ROW])) for at in range(0, len(data), _ROW))
    body = ",\n".join(rows) or "0"
    return (
        f"/* Generated by Kiln: {model}'s weights. */\n"
        f"_Alignas({ALIGNMENT}) const unsigned char {model}_weights[] = {{\n{body}}};\n"
    )


def makefile(model: str) -> str:
    """Return what builds the C of a model with any compiler."""
    return _filled("Makefile.in", Names(model, (), ()))


def _filled(template: str, names: Names, **values: Any) -> str:
    text = (RUNTIME / template).read_text(encoding="utf-8")
    return Template(text).substitute(values, model=names.model, upper=names.model.upper())


def _described(
    program: Program, specs: Sequence[TensorSpec], names: Sequence[str], levels: Mapping[str, Levels]
) -> str:
    return "\n".join(
        f" *   {name}: {each.dtype} [{', '.join(_extent_texts(program, each))}], "
        f"{'at most ' if each.extents else ''}{each.size} bytes"
        f"{f'; each x is {levels[name]}' if name in levels else ''}"
        for name, each in zip(names, specs, strict=True)
    )


def _extent_texts(program: Program, spec: TensorSpec) -> list[str]:
    """Return extents as a reader takes them, with the sizes' names."""
    if not spec.extents:
        return list(map(str, spec.shape))
    return [_SIZE.sub(lambda found: program.sizes[int(found[1])].name, each) for each in spec.extents]


_SIZE = re.compile(r"SIZE\((\d+)\)")


def _sizes_described(program: Program, names: Names) -> str:
    if not program.sizes:
        return ""
    lines = [f" *   {each.name}: {each.least} to {each.greatest}\n" for each in program.sizes]
    return f" * Sizes, set by {names.model}_set_sizes:\n{''.join(lines)}"


def _size_table(program: Program) -> str:
    rows = (
        f"  {{{_quoted(each.name)}, {each.least}, {each.greatest}, {each.input}, {each.dimension}}},"
        for each in program.sizes
    )
    return "\n".join(rows) or "  {0}"


def _extents(program: Program, names: Names) -> str:
    """Set the extents that vary, of each tensor of each table that has some."""
    values = [each for step in program.steps for each in step.outputs]
    tables = ((f"{names.model}_inputs", program.inputs), (f"{names.model}_outputs", program.outputs))
    lines = []
    for table, specs in (*tables, ("values", values)):
        for number, spec in enumerate(specs):
            sets = [f"shape[{i}] = {each};" for i, each in enumerate(spec.extents) if "SIZE" in each]
            if sets:
                lines.append(f"  if (tensor == &{table}[{number}]) {{ {' '.join(sets)} }}\n")
    return "".join(lines)


def _signature(program: Program, names: Names) -> str:
    words = [f"{names.model} *model"]
    words += [f"const {c_type(s.dtype)} *{n}" for n, s in zip(names.inputs, program.inputs, strict=True)]
    words += [f"{c_type(s.dtype)} *{n}" for n, s in zip(names.outputs, program.outputs, strict=True)]
    return ", ".join(words)


def _prototypes(program: Program, names: Names) -> str:
    """Declare each kernel; the last argument is what it writes, or several are, which C need not know."""
    counts = {step.kernel: (len(step.arguments), len(step.sizes)) for step in program.steps}
    return "\n".join(
        f"int32_t {names.kernel(name)}({', '.join(['const void *'] * tensors + ['int64_t'] * sizes)});"
        for name, (tensors, sizes) in counts.items()
    )


def _steps(program: Program, names: Names) -> str:
    lines = []
    for number, step in enumerate(program.steps, 1):
        if layer := names.layer(step):
            lines.append(f"  /* {layer.replace('*/', '* /')} */")
        arguments = ", ".join([*map(_address, step.arguments), *step.sizes])
        made = ", ".join(map(_address, step.made))
        if step.scratch:
            lines.append(f"  kiln_lend(ARENA({step.scratch_at}), {step.scratch});")
        lines.append(f"  STEP({number}, {names.kernel(step.kernel)}({arguments}), {made})")
    return "\n".join(lines)


def _address(place: Place) -> str:
    word = {"input": "IN", "output": "OUT", "arena": "ARENA", "weight": "WEIGHT"}[place.kind]
    return f"{word}({place.at})"


def _table(specs: Sequence[TensorSpec], names: Sequence[str], levels: Mapping[str, Levels]) -> str:
    """List tensors.

    Raises:
        BuildError: one has too many dimensions.
    """
    for name, each in zip(names, specs, strict=True):
        if len(each.shape) > _RANK:
            raise BuildError(f"'{name}' has {len(each.shape)} dimensions: a library describes up to {_RANK}")
    return (
        "\n".join(
            f"  {{{_quoted(name)}, {_quoted(each.dtype)}, {len(each.shape)}, "
            f"{{{', '.join(map(str, each.shape)) or '0'}}}, {each.size}, "
            f"{f'{levels[name].scale!r}, {levels[name].zero}' if name in levels else '0, 0'}}},"
            for name, each in zip(names, specs, strict=True)
        )
        or "  {0}"
    )


def _value_table(program: Program) -> str:
    """List what all steps make, one after the other."""
    made = [each for step in program.steps for each in step.outputs]
    return _table(made, [""] * len(made), {})


def _step_table(program: Program, names: Names) -> str:
    rows, begin = [], 0
    for step in program.steps:
        count = len(step.outputs)
        rows.append(f"  {{{_quoted(step.kernel)}, {_quoted(names.layer(step))}, {count}, values + {begin}}},")
        begin += count
    return "\n".join(rows) or "  {0}"


def _copies(program: Program, model: str) -> str:
    """Copy to outputs what no kernel wrote there."""
    lines = []
    for number, place in program.copies:
        word = {"input": f"inputs[{place.at}]", "output": f"outputs[{place.at}]"}
        found = word.get(place.kind, f"WEIGHT({place.at})")
        lines.append(f"  memcpy(outputs[{number}], {found}, {model}_outputs[{number}].bytes);\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
