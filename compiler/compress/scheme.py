"""Schemes: what the numbers of a model become, by name.

A scheme is a quantizer for the weights and one for the activations. A quantizer is one of four types
(`Linear`, `Log2`, `Binary`, `Float`), each with the fields that make sense for it; the first three also say
which elements share a scale (`PerTensor`, `PerChannel`, `PerGroup`, `PerToken`).

    name               weights                        activations               source
    int8               int8 symmetric per channel     uint8 affine per tensor   Krishnamoorthi 2018
    int8-tensor        int8 symmetric per tensor      uint8 affine per tensor   Jacob et al. 2018
    int8-dynamic       int8 symmetric per channel     uint8 affine per token,   Yao et al. 2022,
                                                      scaled at run time        Dettmers et al. 2022
    int8-weight-only   int8 symmetric per channel     float                     Krishnamoorthi 2018
    int4-weight-only   int4 symmetric, groups of 128  float                     Frantar et al. 2022,
    int4-g128          the same; any group size       float                     Lin et al. 2023
    fp16               float16                        float16                   Micikevicius et al. 2018
    bf16               bfloat16                       bfloat16                  Kalamkar et al. 2019
    binary             sign * mean |w| per channel    float                     Rastegari et al. 2016
    binary-xnor        sign * mean |w| per channel    sign * mean |x|,          Rastegari et al. 2016
                                                      scaled at run time
    log2               sign * 2^k, 4 bits             uint8 affine per tensor   Miyashita et al. 2016,
    log2-weight-only   sign * 2^k, 4 bits             float                     Zhou et al. 2017

Every ``int8`` may be ``int2`` to ``int8``; the number is the bits of a weight, activations keep 8. With one
bit, the first and the last layer stay in float unless a recipe says otherwise, as Rastegari et al. have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from compiler.support.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class PerTensor:
    """One scale for a whole array (Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    """

    def __str__(self) -> str:
        return "per tensor"


@dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel of a weight (Krishnamoorthi, "Quantizing deep convolutional
    networks for efficient inference: A whitepaper", 2018).
    """

    def __str__(self) -> str:
        return "per channel"


@dataclass(frozen=True)
class PerGroup:
    """One scale for each output channel and `size` consecutive elements that are summed (Frantar et al.,
    "GPTQ", 2022; Lin et al., "AWQ", 2023). The last group of a channel may be shorter.
    """

    size: int = 128

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UsageError(f"expected a group of at least 2 elements, got {self.size}")

    def __str__(self) -> str:
        return f"per group of {self.size}"


@dataclass(frozen=True)
class PerToken:
    """One scale for each row of an activation, that is for all but its last axis (Yao et al., "ZeroQuant",
    NeurIPS 2022; Dettmers et al., "LLM.int8()", NeurIPS 2022). Computed at run time.
    """

    def __str__(self) -> str:
        return "per token"


Granularity = PerTensor | PerChannel | PerGroup | PerToken
"""Which elements share a scale."""


@dataclass(frozen=True)
class Linear:
    """Evenly spaced numbers, ``scale * (code - zero_point)`` (Jacob et al., CVPR 2018).

    `bits` is 2 to 8; codes are stored in 8-bit integers, signed or not. A symmetric quantizer has its zero
    point in the middle and as many codes below it as above: the lowest code is left unused, so that ``-w``
    can be encoded wherever ``w`` can.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    granularity: Granularity = PerTensor()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"expected 2 to 8 bits for a linear quantizer, got {self.bits}")

    @property
    def lowest(self) -> int:
        """The least code in use."""
        return self.highest - (1 << self.bits) + (2 if self.symmetric else 1)

    @property
    def highest(self) -> int:
        """The greatest code in use."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    @property
    def storage(self) -> str:
        """The dtype that holds a code, by numpy's name."""
        return "int8" if self.signed else "uint8"

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "affine"
        return f"{'int' if self.signed else 'uint'}{self.bits} {kind} {self.granularity}"


@dataclass(frozen=True)
class Log2:
    """Powers of two and zero: a product is a shift (Miyashita et al., "Convolutional Neural Networks using
    Logarithmic Data Representation", 2016; Zhou et al., "Incremental Network Quantization", ICLR 2017).

    `bits` is 2 to 5: a sign and ``2**(bits - 1) - 1`` neighbouring exponents. More would shift an 8-bit
    activation out of 32 bits.
    """

    bits: int = 4
    granularity: Granularity = PerChannel()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 5:
            raise UsageError(f"expected 2 to 5 bits for a power-of-two quantizer, got {self.bits}")

    @property
    def highest(self) -> int:
        """The greatest code, ``-highest`` is the least; 0 stands for zero."""
        return (1 << (self.bits - 1)) - 1

    def __str__(self) -> str:
        return f"{self.bits}-bit powers of two {self.granularity}"


@dataclass(frozen=True)
class Binary:
    """The sign times the mean magnitude (Rastegari et al., "XNOR-Net", ECCV 2016): one bit an element.

    With both sides binary, a dot product is an XNOR and a population count.
    """

    granularity: Granularity = PerChannel()

    def __str__(self) -> str:
        return f"binary {self.granularity}"


@dataclass(frozen=True)
class Float:
    """16-bit floating point: ``float16`` (Micikevicius et al., "Mixed Precision Training", ICLR 2018) or
    ``bfloat16`` (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019).
    """

    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "bfloat16"):
            raise UsageError(f"expected float16 or bfloat16, got {self.dtype}")

    def __str__(self) -> str:
        return self.dtype


Quantizer = Linear | Log2 | Binary | Float
"""What one array becomes."""


@dataclass(frozen=True)
class Scheme:
    """What a model becomes.

    `activations` of None stay in float. A `dynamic` scheme computes the scales of activations at run time, in
    front of each layer; any other takes them from calibration data. `source` cites the scheme.

    Raises:
        UsageError: scales are shared in a way that no kernel could use.
    """

    name: str
    weights: Quantizer
    activations: Quantizer | None = None
    dynamic: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        if isinstance(getattr(self.weights, "granularity", None), PerToken):
            raise UsageError(f"scheme '{self.name}': weights have no tokens; share their scales otherwise")
        shared = getattr(self.activations, "granularity", PerTensor())
        if not isinstance(shared, (PerTensor, PerToken) if self.dynamic else PerTensor):
            allowed = "per tensor or per token" if self.dynamic else "per tensor"
            raise UsageError(
                f"scheme '{self.name}': expected scales of activations {allowed}, got {shared}: "
                "no integer sum runs over elements of different scales"
            )

    @property
    def weight_bits(self) -> int:
        """The bits that one weight takes."""
        if isinstance(self.weights, Float):
            return 16
        return 1 if isinstance(self.weights, Binary) else self.weights.bits

    @property
    def keeps_ends(self) -> bool:
        """Whether the first and the last layers should stay in float unless the user says otherwise."""
        return isinstance(self.weights, Binary)

    @property
    def needs_data(self) -> bool:
        """Whether scales of activations come from calibration data."""
        return self.activations is not None and not self.dynamic and not isinstance(self.activations, Float)

    def __str__(self) -> str:
        activations = "float" if self.activations is None else str(self.activations)
        return f"weights {self.weights}, activations {activations}{', dynamic' if self.dynamic else ''}"


_JACOB = "Jacob et al., CVPR 2018"
_KRISHNAMOORTHI = "Krishnamoorthi, 2018"
_TOKENS = "Yao et al., NeurIPS 2022; Dettmers et al., NeurIPS 2022"
_GROUPS = "Frantar et al., 2022; Lin et al., 2023"
_RASTEGARI = "Rastegari et al., ECCV 2016"
_POWERS = "Miyashita et al., 2016; Zhou et al., ICLR 2017"

_GROUPED = re.compile(r"int([2-8])-g(\d+)")


def _presets() -> Iterator[Scheme]:
    affine = Linear(8, signed=False, symmetric=False)
    for bits in range(8, 1, -1):
        whole, channels = Linear(bits), Linear(bits, granularity=PerChannel())
        tokens = Linear(8, signed=False, symmetric=False, granularity=PerToken())
        yield Scheme(f"int{bits}", channels, affine, source=_KRISHNAMOORTHI)
        yield Scheme(f"int{bits}-tensor", whole, affine, source=_JACOB)
        yield Scheme(f"int{bits}-dynamic", channels, tokens, dynamic=True, source=_TOKENS)
        yield _weight_only(bits)
        yield from (_grouped(bits, size) for size in (32, 64, 128))
    yield Scheme("fp16", Float("float16"), Float("float16"), source="Micikevicius et al., ICLR 2018")
    yield Scheme("bf16", Float("bfloat16"), Float("bfloat16"), source="Kalamkar et al., 2019")
    yield Scheme("binary", Binary(), source=_RASTEGARI)
    yield Scheme("binary-xnor", Binary(), Binary(PerTensor()), dynamic=True, source=_RASTEGARI)
    yield Scheme("log2", Log2(), affine, source=_POWERS)
    yield Scheme("log2-weight-only", Log2(), source=_POWERS)


def _weight_only(bits: int) -> Scheme:
    """Return the scheme of small weights alone; below 8 bits a scale for a whole channel is too coarse."""
    name = f"int{bits}-weight-only"
    if bits == 8:
        return Scheme(name, Linear(bits, granularity=PerChannel()), source=_KRISHNAMOORTHI)
    return Scheme(name, Linear(bits, granularity=PerGroup()), source=_GROUPS)


def _grouped(bits: int, size: int) -> Scheme:
    return Scheme(f"int{bits}-g{size}", Linear(bits, granularity=PerGroup(size)), source=_GROUPS)


PRESETS: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _presets()})
"""Every scheme that has a name; `scheme_named` also knows other group sizes."""


def scheme_named(text: str) -> Scheme:
    """Return the scheme that `text` names, such as ``int8`` or ``int4-g96``.

    Raises:
        UsageError: there is none of that name.
    """
    if text in PRESETS:
        return PRESETS[text]
    if match := _GROUPED.fullmatch(text):
        return _grouped(int(match[1]), int(match[2]))
    eight = [name for name in PRESETS if not name.startswith("int") or name.startswith(("int8", "int4-g128"))]
    raise UsageError(
        f"there is no scheme '{text}'{did_you_mean(text, PRESETS)} (schemes: {', '.join(eight)}; "
        "int2 to int7 in place of int8, and any group size in place of g128)"
    )
