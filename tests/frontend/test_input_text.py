import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compiler.frontend.input_text import DTYPES, Axis, make_example, parse_inputs
from compiler.support.errors import UsageError


def one(text):
    (parsed,) = parse_inputs([text])
    return parsed


def test_shapes_dtypes_and_ranges():
    parsed = one("x=1x3x224x224")
    assert (parsed.name, parsed.dtype, parsed.bounds) == ("x", "float32", None)
    assert [axis.factor for axis in parsed.axes] == [1, 3, 224, 224]
    assert one("ids=1x128:int64[0,1000]").bounds == (0, 1000)
    assert one("x=4:float32[-0.5,1e3]").bounds == (-0.5, 1000)
    assert one("step=scalar:int64").axes == ()


def test_symbolic_dimensions():
    axes = one("x=N[1,64]x3x8*Hx8*W[4,]").axes
    assert axes == (Axis(1, "N", 1, 64), Axis(3), Axis(8, "H"), Axis(8, "W", 4, None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x3x8", "expected an input as name=SHAPE:dtype"),
        ("x=1x3:floot32", "did you mean 'float32'"),
        ("x=1x-3", "got '-3'"),
        ("x=1x3x", "got ''"),
        ("x=:int64", "expected an input as name=SHAPE"),
        ("ids=4:int64[9,1]", "least <= greatest"),
        ("ids=4:int64[a,b]", "two numbers"),
        ("x=N[4,2]", "least <= greatest for dimension 'N'"),
    ],
)
def test_wrong_texts_say_what_is_expected(text, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_inputs([text])


def test_an_input_is_described_once():
    with pytest.raises(UsageError, match="'x' is described twice"):
        parse_inputs(["x=1", "x=2"])


def test_examples_follow_the_description():
    made = make_example(parse_inputs(["x=NxHxW", "y=N:int64[5,7]", "b=100:bool", "h=2x2*H:float16"]))
    assert made["x"].shape[0] == made["y"].shape[0] == 2
    assert made["x"].shape[1] != made["x"].shape[2], "equal sizes could be taken for one dimension"
    assert made["h"].shape[1] == 2 * made["x"].shape[1]
    assert made["h"].dtype == torch.float16
    assert set(made["y"].tolist()) <= {5, 6, 7}
    assert set(made["b"].tolist()) == {True, False}


@given(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(DTYPES))
def test_any_shape_and_dtype(shape, dtype):
    text = f"x={'x'.join(map(str, shape)) or 'scalar'}:{dtype}"
    tensor = make_example(parse_inputs([text]))["x"]
    assert tuple(tensor.shape) == tuple(shape)
    assert str(tensor.dtype) == f"torch.{dtype}"


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(UsageError):
        assert parse_inputs([text])
