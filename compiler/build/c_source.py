"""The C of an ahead-of-time library: a header for who uses it, and a file that calls its kernels in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from compiler.build.memory_plan import ALIGNMENT, aligned
from compiler.build.program import Place, Program, TensorSpec
from compiler.support.errors import BuildError

RUNTIME = Path(__file__).parent / "runtime"
"""Templates, and C that is the same for all models."""

_RANK = 8
"""The most dimensions of an input or output."""

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
        model: the prefix of all names.
        inputs: in order.
        outputs: in order.
        layers: by kernel, what it computes of the user's model, for comments.
        about: sentences for the head of the header.
        cpu: what the code is for, in words.
        features: that it needs, see `compiler.build.cpu_checks`.
    """

    model: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    layers: Mapping[str, str]
    about: Sequence[str] = ()
    cpu: str = ""
    features: Sequence[str] = ()

    def kernel(self, name: str) -> str:
        """Return the name of a kernel's C function."""
        return f"{self.model}_kernel_{name}"


def c_type(dtype: str) -> str:
    """Return the C type of a tensor's elements.

    Raises:
        BuildError: there is none.
    """
    if dtype not in _C_TYPES:
        raise BuildError(f"expected tensors of {', '.join(_C_TYPES)}, got {dtype}")
    return _C_TYPES[dtype]


def header(program: Program, names: Names, scratch: int) -> str:
    """Return ``MODEL.h``; kernels need `scratch` bytes beside the arena for each thread but the caller's."""
    return _filled(
        "model.h.in",
        names,
        about="".join(f" * {line}\n" for line in names.about),
        alignment=ALIGNMENT,
        arena=program.plan.size,
        arguments=", ".join([*names.inputs, *names.outputs]),
        inputs=_described(program.inputs, names.inputs),
        outputs=_described(program.outputs, names.outputs),
        rank=_RANK,
        scratch=aligned(scratch),
        signature=_signature(program, names),
        weights=program.weight_bytes,
    )


def source(program: Program, names: Names) -> str:
    """Return ``MODEL.c``; it includes the runtime's header and ``MODEL.h``."""
    return _filled(
        "model.c.in",
        names,
        copies=_copies(program, names.model),
        cpu=names.cpu,
        feature_count=len(names.features),
        features=", ".join(names.features) or "{0}",
        input_count=len(program.inputs),
        input_table=_table(program.inputs, names.inputs),
        inputs=", ".join(names.inputs),
        output_count=len(program.outputs),
        output_table=_table(program.outputs, names.outputs),
        outputs=", ".join(names.outputs),
        prototypes=_prototypes(program, names),
        signature=_signature(program, names),
        staging=", ".join(map(str, program.staging)),
        step_count=len(program.steps),
        step_table=_step_table(program, names),
        steps=_steps(program, names),
    )


def runner(names: Names, tolerance: float) -> str:
    """Return the C of ``MODEL-run``; outputs may be off by `tolerance`, relative to their range."""
    return _filled("model_run.c.in", names, tolerance=repr(tolerance))


def _filled(template: str, names: Names, **values: Any) -> str:
    text = (RUNTIME / template).read_text(encoding="utf-8")
    return Template(text).substitute(values, model=names.model, upper=names.model.upper())


def _described(specs: Sequence[TensorSpec], names: Sequence[str]) -> str:
    return "\n".join(
        f" *   {name}: {each.dtype} [{', '.join(map(str, each.shape))}], {each.size} bytes"
        for name, each in zip(names, specs, strict=True)
    )


def _signature(program: Program, names: Names) -> str:
    words = [f"{names.model} *model"]
    words += [f"const {c_type(s.dtype)} *{n}" for n, s in zip(names.inputs, program.inputs, strict=True)]
    words += [f"{c_type(s.dtype)} *{n}" for n, s in zip(names.outputs, program.outputs, strict=True)]
    return ", ".join(words)


def _prototypes(program: Program, names: Names) -> str:
    """Declare each kernel; the last argument is what it writes, or several are, which C need not know."""
    counts = {step.kernel: len(step.arguments) for step in program.steps}
    return "\n".join(
        f"int32_t {names.kernel(name)}({', '.join(['const void *'] * count)});"
        for name, count in counts.items()
    )


def _steps(program: Program, names: Names) -> str:
    lines = []
    for number, step in enumerate(program.steps, 1):
        if layers := names.layers.get(step.kernel):
            lines.append(f"  /* {layers.replace('*/', '* /')} */")
        arguments = ", ".join(map(_address, step.arguments))
        if step.scratch:
            lines.append(f"  kiln_lend(ARENA({step.scratch_at}), {step.scratch});")
        lines.append(f"  STEP({number}, {names.kernel(step.kernel)}({arguments}))")
    return "\n".join(lines)


def _address(place: Place) -> str:
    word = {"input": "IN", "output": "OUT", "arena": "ARENA", "weight": "WEIGHT"}[place.kind]
    return f"{word}({place.at})"


def _table(specs: Sequence[TensorSpec], names: Sequence[str]) -> str:
    return (
        "\n".join(
            f"  {{{_quoted(name)}, {_quoted(each.dtype)}, {len(each.shape)}, "
            f"{{{', '.join(map(str, each.shape)) or '0'}}}, {each.size}}},"
            for name, each in zip(names, specs, strict=True)
        )
        or "  {0}"
    )


def _step_table(program: Program, names: Names) -> str:
    rows = (f"  {{{_quoted(s.kernel)}, {_quoted(names.layers.get(s.kernel, ''))}}}," for s in program.steps)
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
