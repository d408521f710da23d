import dataclasses

import pytest

from compiler.compress.scheme import (
    PRESETS,
    Binary,
    Float,
    Linear,
    Log2,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    Scheme,
    scheme_named,
)
from compiler.support.errors import UsageError


@pytest.mark.parametrize(
    ("linear", "lowest", "highest", "storage"),
    [
        (Linear(8), -127, 127, "int8"),
        (Linear(8, symmetric=False), -128, 127, "int8"),
        (Linear(8, signed=False), 1, 255, "uint8"),
        (Linear(8, signed=False, symmetric=False), 0, 255, "uint8"),
        (Linear(4), -7, 7, "int8"),
        (Linear(4, signed=False, symmetric=False), 0, 15, "uint8"),
        (Linear(2), -1, 1, "int8"),
    ],
)
def test_codes_in_use(linear, lowest, highest, storage):
    assert (linear.lowest, linear.highest, linear.storage) == (lowest, highest, storage)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(9), "expected 2 to 8 bits for a linear quantizer, got 9"),
        (lambda: Linear(1), "got 1"),
        (lambda: Log2(6), "expected 2 to 5 bits for a power-of-two quantizer, got 6"),
        (lambda: PerGroup(1), "expected a group of at least 2 elements, got 1"),
        (lambda: Float("float32"), "expected float16 or bfloat16, got float32"),
        (lambda: Scheme("mine", Linear(granularity=PerToken())), "weights have no tokens"),
        (lambda: Scheme("mine", Linear(), Linear(granularity=PerToken())), "per tensor, got per token"),
        (lambda: Scheme("mine", Linear(), Linear(granularity=PerChannel()), dynamic=True), "per token, got"),
    ],
)
def test_what_no_kernel_could_use_is_refused(make, message):
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "needs_data"),
    [
        ("int8", "weights int8 symmetric per channel, activations uint8 affine per tensor", True),
        ("int8-tensor", "weights int8 symmetric per tensor, activations uint8 affine per tensor", True),
        (
            "int8-dynamic",
            "weights int8 symmetric per channel, activations uint8 affine per token, dynamic",
            False,
        ),
        ("int8-weight-only", "weights int8 symmetric per channel, activations float", False),
        ("int4-weight-only", "weights int4 symmetric per group of 128, activations float", False),
        ("int4-g128", "weights int4 symmetric per group of 128, activations float", False),
        ("int4", "weights int4 symmetric per channel, activations uint8 affine per tensor", True),
        ("fp16", "weights float16, activations float16", False),
        ("bf16", "weights bfloat16, activations bfloat16", False),
        ("binary", "weights binary per channel, activations float", False),
        ("binary-xnor", "weights binary per channel, activations binary per tensor, dynamic", False),
        ("log2", "weights 4-bit powers of two per channel, activations uint8 affine per tensor", True),
        ("log2-weight-only", "weights 4-bit powers of two per channel, activations float", False),
    ],
)
def test_presets(name, text, needs_data):
    scheme = scheme_named(name)
    assert scheme.name == name
    assert str(scheme) == text
    assert scheme.needs_data is needs_data


def test_every_preset_is_under_its_name_and_cites_a_source():
    for name, scheme in PRESETS.items():
        assert scheme.name == name
        assert scheme.source
        assert scheme_named(name) is scheme
    assert {f"int{bits}" for bits in range(2, 9)} <= set(PRESETS)


def test_any_group_size_is_known():
    assert scheme_named("int3-g96").weights == Linear(3, granularity=PerGroup(96))
    with pytest.raises(UsageError, match="at least 2 elements"):
        scheme_named("int4-g0")


def test_unknown_names():
    with pytest.raises(UsageError) as caught:
        scheme_named("int8-dynamc")
    assert str(caught.value) == (
        "there is no scheme 'int8-dynamc'; did you mean 'int8-dynamic'? (schemes: int8, int8-tensor, "
        "int8-dynamic, int8-weight-only, int8-g32, int8-g64, int8-g128, int4-g128, fp16, bf16, binary, "
        "binary-xnor, log2, log2-weight-only; int2 to int7 in place of int8, and any group size in place of "
        "g128)"
    )


def test_schemes_are_values():
    assert dataclasses.replace(PRESETS["int8"], name="x") == dataclasses.replace(PRESETS["int8"], name="x")
    assert Binary() == Binary(PerChannel()) != Binary(PerTensor())
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["int8"].name = "other"
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["int8"]
