"""What a graph can be made into in more than one way, all of them right: which one is fastest is measured.

A pass names the *site* of a choice, what it would choose by a formula, and the options. Who compiles answers
with that, or with what was measured; who tunes listens first, and then tries the options.

    convolution   one 3 x 3 convolution: direct, or as Winograd's of one of its sizes
    vectors       the whole network: channels in blocks of whole or of half vectors
    residuals     the whole network: sums of two activations at the end of the kernel before, or on their own
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import constant
from compiler.target import Target

_NARROWEST = 256
"""Bits of the narrowest half vectors that are worth a try: with fewer, instructions outweigh their lanes."""

_DIGITS = 12


@dataclass(frozen=True)
class Convolution:
    """`m` of Winograd's F(m x m, 3 x 3), None for a direct convolution."""

    m: int | None


@dataclass(frozen=True)
class Vectors:
    """`bits` of the vectors that channels are blocked by."""

    bits: int


@dataclass(frozen=True)
class Residuals:
    """Whether sums of two activations are `fused` to the kernel before."""

    fused: bool


class Site(Protocol):
    """Where something is to be chosen: the same work has the same name in every process and network."""

    @property
    def name(self) -> str:
        """The name that records have."""


O = TypeVar("O")  # noqa: E741 - an option, a frozen dataclass


class Choose(Protocol):
    """Chooses one of `options`; `default` is what a formula would choose."""

    def __call__(self, site: Site, default: O, options: Sequence[O]) -> O:
        """Return an option."""


def usual(site: Site, default: O, options: Sequence[O]) -> O:
    """Choose what untuned code has."""
    del site, options
    return default


@dataclass(frozen=True)
class ConvolutionSite:
    """A 3 x 3 convolution of stride 1 of (N, C, H, W) `images`, `lanes` channels a block."""

    images: tuple[int, int, int, int]
    outputs: int
    padding: tuple[int, int, int, int]
    lanes: int

    @property
    def name(self) -> str:
        """Words for people: all that the choice depends on."""
        size = "x".join(map(str, self.images))
        around = ",".join(map(str, self.padding))
        return f"choice conv3x3 {size} -> {self.outputs} channels, padding {around}, blocks of {self.lanes}"

    def module(self) -> tvm.IRModule:
        """Return a network of this convolution alone, with random weights."""
        shape = (self.outputs, self.images[1], 3, 3)
        weight = constant(np.random.default_rng(0).standard_normal(shape, np.float32) / 3)
        x = relax.Var("x", relax.TensorType(self.images, "float32"))
        builder = relax.BlockBuilder()
        with builder.function("main", [x]):
            with builder.dataflow():
                y = builder.emit_output(relax.op.nn.conv2d(x, weight, padding=self.padding))
            builder.emit_func_output(y)
        return builder.get()


@dataclass(frozen=True, eq=False)
class NetworkSite:
    """A whole network, as imported, and `what` is chosen for it."""

    what: str
    mod: tvm.IRModule

    @property
    def name(self) -> str:
        """The name that records have; nobody else needs the digest of a network."""
        return f"choice {self.what} #{digest_of(self.mod)}"


def digest_of(mod: tvm.IRModule) -> str:
    """Return a digest of the operators of ``main``, and of the types of what they give; not of weights."""
    words: list[str] = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            op = getattr(getattr(value, "op", None), "name", type(value).__name__)
            words.append(f"{op} {binding.var.ty}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:_DIGITS]


def vectors_site(mod: tvm.IRModule) -> NetworkSite:
    """Return the site of `laid_out`."""
    return NetworkSite("vectors", mod)


def residuals_site(mod: tvm.IRModule) -> NetworkSite:
    """Return the site of `fuses_residuals`."""
    return NetworkSite("residuals", mod)


def laid_out(mod: tvm.IRModule, target: Target, choose: Choose = usual) -> Target:
    """Return `target` with vectors as wide as is best for `mod`, as imported."""
    bits = target.vector.bits
    if target.kind != "cpu" or bits // 2 < _NARROWEST:
        return target
    options = [Vectors(bits), Vectors(bits // 2)]
    chosen: Any = choose(vectors_site(mod), options[0], options)
    return dataclasses.replace(target, vector=dataclasses.replace(target.vector, bits=chosen.bits))


def fuses_residuals(mod: tvm.IRModule, choose: Choose = usual) -> bool:
    """Return whether sums of two activations become a part of the kernel before."""
    options = [Residuals(True), Residuals(False)]
    chosen: Any = choose(residuals_site(mod), options[0], options)
    return bool(chosen.fused)
