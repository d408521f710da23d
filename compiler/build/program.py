"""A network as a list of kernel calls over planned memory: what the ahead-of-time library does, step by step.

Where the virtual machine looks at each tensor when it runs, here all shapes are known when the library is
built, so a call is no more than addresses: of weights, of the arena, of the caller's own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax

from compiler.build.memory_plan import Lifetime, MemoryPlan, aligned, plan_memory
from compiler.build.plain_kernels import Facts
from compiler.build.sizes import Sizes, SizeSpec
from compiler.ir.layers import layer_of
from compiler.support.errors import BuildError

Kind = Literal["input", "output", "arena", "weight"]


@dataclass(frozen=True)
class Place:
    """Where a tensor is: the number of an input or output, or an offset in bytes."""

    kind: Kind
    at: int


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor, dense in C order.

    Where sizes vary, `shape` is the greatest, and `extents` has all extents as C, see `compiler.build.sizes`.
    """

    shape: tuple[int, ...]
    dtype: str
    extents: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return max(1, int(np.prod(self.shape, dtype=np.int64)) * int(tvm.DataType(self.dtype).bits) // 8)


@dataclass(frozen=True)
class Step:
    """A call of a kernel.

    Attributes:
        kernel: its name.
        arguments: where its arguments are, inputs first.
        outputs: what the last arguments are: the tensors that it makes.
        layer: what the result is in the user's model, empty if not known.
        scratch: bytes of the arena that it takes while it runs, at `scratch_at`.
        sizes: what it takes after its tensors, as C.
    """

    kernel: str
    arguments: tuple[Place, ...]
    outputs: tuple[TensorSpec, ...] = ()
    layer: str = ""
    scratch: int = 0
    scratch_at: int = 0
    sizes: tuple[str, ...] = ()

    @property
    def made(self) -> tuple[Place, ...]:
        """Where the outputs are."""
        return self.arguments[len(self.arguments) - len(self.outputs) :]


@dataclass(frozen=True)
class Program:
    """What a run does.

    Attributes:
        inputs: of the network.
        outputs: of the network.
        steps: in order.
        staging: for each input, then each output, the offset of its copy in the arena: used where the
            caller's own memory is not aligned.
        plan: of the arena.
        weights: tensors by their offsets in the file of weights.
        copies: outputs that no kernel writes, from where they are: an input, a weight, another output.
        sizes: that vary from run to run.
        scratch: bytes that kernels need beside the arena for each thread but the caller's.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    staging: tuple[int, ...]
    plan: MemoryPlan
    weights: dict[int, tvm.runtime.Tensor] = field(compare=False)
    weight_bytes: int = 0
    copies: tuple[tuple[int, Place], ...] = ()
    sizes: tuple[SizeSpec, ...] = ()
    scratch: int = 0


def program_of(mod: tvm.IRModule, facts: Facts) -> Program:
    """Return the program of a scheduled module's ``main``, with `facts` about its kernels by their names.

    Raises:
        BuildError: a shape is known only when it runs, or something is no call of a kernel.
    """
    step = relax.transform
    passes = [step.RewriteDataflowReshape(), step.ToNonDataflow(), step.RemovePurityChecking()]
    main = tvm.transform.Sequential(passes)(mod)["main"]
    return _Reader(main, facts).program()


def why_not_ahead(mod: tvm.IRModule, memory: int) -> str | None:
    """Return why a scheduled module has no `Program` for a device of so many bytes, None if it has one."""
    try:
        program = program_of(mod, {})
    except BuildError as error:
        return str(error)
    needed = program.plan.size + program.weight_bytes
    if needed <= memory:
        return None
    most = ", ".join(f"{each.name} {each.greatest}" for each in program.sizes)
    at = f" at its greatest sizes ({most})" if most else ""
    return f"it would take {needed / 1e9:.1f} GB of memory{at}, and the device has {memory / 1e9:.1f} GB"


@dataclass(eq=False)
class _Tensor:
    """A tensor while it is read: which steps write and read it."""

    spec: TensorSpec
    kind: Kind
    number: int = 0
    extents: Sequence[Any] = ()
    first: int = -1
    last: int = -1


@dataclass(frozen=True)
class _Call:
    """A step while it is read."""

    kernel: str
    arguments: list[_Tensor]
    results: list[_Tensor]
    layer: str
    sizes: list[Any]


class _Reader:
    """Reads a function's bindings into calls over tensors."""

    def __init__(self, main: Any, facts: Facts) -> None:
        self._main, self._facts, self._sizes = main, facts, Sizes(main)
        self._values: dict[Any, Any] = {}
        self._tensors: list[_Tensor] = []
        self._calls: list[_Call] = []
        self._weights: dict[int, tvm.runtime.Tensor] = {}
        self._constants: list[tuple[Any, _Tensor]] = []
        self._end = 0

    def program(self) -> Program:
        """Read all, then plan."""
        inputs = [self._new(each.ty, "input", number) for number, each in enumerate(self._main.params)]
        self._values = dict(zip(self._main.params, inputs, strict=True))
        for block in self._main.body.blocks:
            for binding in block.bindings:
                self._values[binding.var] = self._read(binding.value, layer_of(binding.var))
        results = self._values[self._main.body.body] if isinstance(self._main.body.body, relax.Var) else None
        results = self._read(self._main.body.body) if results is None else results
        outputs: Sequence[_Tensor] = results if isinstance(results, list) else [results]
        return self._planned(inputs, outputs)

    def _new(self, type_: Any, kind: Kind, number: int = 0) -> _Tensor:
        tensor = _Tensor(self._spec(type_), kind, number, list(type_.shape))
        self._tensors.append(tensor)
        return tensor

    def _read(self, value: Any, layer: str = "") -> Any:
        """Return the tensor that an expression is, or the list of them; a kernel computes `layer`."""
        if isinstance(value, relax.Var):
            return self._values[value]
        if isinstance(value, tvm.ir.GenericConst):
            return self._weight(value)
        if isinstance(value, relax.Tuple):
            return [self._read(each) for each in value.fields]
        if isinstance(value, relax.TupleGetItem):
            return self._read(value.tuple_value)[value.index]
        if isinstance(value, relax.Call):
            name = getattr(value.op, "name", str(value.op))
            if name == "relax.call_tir":
                return self._call(value, layer)
            if name == "relax.reshape":
                return self._read(value.args[0])  # dense either way: the same bytes
        raise BuildError(f"expected calls of kernels, got `{str(value).splitlines()[0][:120]}`")

    def _call(self, call: Any, layer: str) -> Any:
        kernel, arguments = call.args[0].name_hint, [self._read(each) for each in call.args[1].fields]
        sizes = list(call.args[2].values) if len(call.args) > 2 else []
        types = call.ty_args[0]
        many = isinstance(types, relax.TupleType)
        results = [self._new(each, "arena") for each in (types.fields if many else [types])]
        step = len(self._calls)
        for each in results:
            each.first = each.last = step
        for each in arguments:
            each.last = step
        implied = self._facts[kernel].implied if kernel in self._facts else ()
        every = [*arguments, *results]
        sizes += [every[argument].extents[dimension] for argument, dimension in implied]
        self._calls.append(_Call(kernel, arguments, results, layer, sizes))
        return results if many else results[0]

    def _weight(self, constant: Any) -> _Tensor:
        for known, tensor in self._constants:
            if known.same_as(constant):
                return tensor
        value = constant.value
        shape = tuple(map(int, value.shape))
        tensor = _Tensor(TensorSpec(shape, str(value.dtype)), "weight", self._end, list(shape))
        self._weights[self._end] = value
        self._end += aligned(tensor.spec.size)
        self._constants.append((constant, tensor))
        return tensor

    def _planned(self, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> Program:
        """Give every tensor its place: what leaves the network is written where the caller wants it."""
        end, copies = len(self._calls), []
        written: list[_Tensor] = []
        for number, tensor in enumerate(outputs):
            if tensor.kind == "arena":
                tensor.kind, tensor.number = "output", number
                tensor.last = end
                written.append(tensor)
            else:
                copies.append((number, tensor))
        planned = [tensor for tensor in self._tensors if tensor.kind != "weight"]
        for tensor in inputs:
            tensor.first, tensor.last = 0, max(0, tensor.last)
        memory = [self._memory(call) for call in self._calls]
        taken = [shared + own for shared, own in memory]
        lifetimes = [Lifetime(each.spec.size, each.first, each.last) for each in planned]
        lifetimes += [Lifetime(size, step, step) for step, size in enumerate(taken)]
        plan = plan_memory(lifetimes)
        scratch_at = plan.offsets[len(planned) :]
        offsets = dict(zip(map(id, planned), plan.offsets, strict=False))
        places = {
            id(each): self._place(each, offsets) for each in (*planned, *(t for _, t in self._constants))
        }
        steps = tuple(
            Step(
                call.kernel,
                tuple(places[id(each)] for each in (*call.arguments, *call.results)),
                tuple(each.spec for each in call.results),
                call.layer,
                size,
                at,
                tuple(map(self._sizes.in_c, call.sizes)),
            )
            for call, size, at in zip(self._calls, taken, scratch_at, strict=True)
        )
        staging = [offsets[id(each)] for each in inputs]
        staging += [offsets[id(each)] if each in written else 0 for each in outputs]
        return Program(
            tuple(each.spec for each in inputs),
            tuple(each.spec for each in outputs),
            steps,
            tuple(staging),
            plan,
            self._weights,
            self._end,
            tuple((number, places[id(tensor)]) for number, tensor in copies),
            tuple(self._sizes.specs),
            max((own for _, own in memory), default=0),
        )

    def _memory(self, call: _Call) -> tuple[int, int]:
        """Return the bytes that a call's kernel allocates at most: for all threads, and for each."""
        facts = self._facts.get(call.kernel)
        if facts is None:
            return 0, 0
        values = [self._sizes.greatest(each) for each in call.sizes]
        return facts.shared.bytes(values), facts.own.bytes(values)

    @staticmethod
    def _place(tensor: _Tensor, offsets: dict[int, int]) -> Place:
        return Place(tensor.kind, offsets[id(tensor)] if tensor.kind == "arena" else tensor.number)

    def _spec(self, type_: Any) -> TensorSpec:
        """Return what a tensor's type says.

        Raises:
            BuildError: an extent is known only when it runs.
        """
        shape = getattr(type_, "shape", None)
        if shape is None:
            raise BuildError(f"expected tensors of known shapes, got {type_}")
        fixed = all(isinstance(extent, tvm.tirx.IntImm) for extent in shape)
        extents = () if fixed else tuple(map(self._sizes.in_c, shape))
        return TensorSpec(tuple(map(self._sizes.greatest, shape)), str(type_.dtype), extents)
