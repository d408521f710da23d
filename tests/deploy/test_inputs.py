import pytest

from compiler.deploy.inputs import ShapeChecker, bind
from compiler.support.errors import InputError
from compiler.support.signature import Signature, TensorSpec

TWO = Signature((TensorSpec("left", (2,), "float32"), TensorSpec("right", (2,), "float32")), ())
SYMBOLIC = Signature(
    (
        TensorSpec("a", ("N", 3, "8*H"), "float32"),
        TensorSpec("b", ("N",), "int64"),
        TensorSpec("c", ("H*8", "N + 1"), "float32"),
    ),
    (),
    dims={"N": (1, 16), "H": (2, None)},
)


def test_by_position_by_name_and_mixed():
    assert bind(TWO, (1, 2), {}) == [1, 2]
    assert bind(TWO, (), {"right": 2, "left": 1}) == [1, 2]
    assert bind(TWO, (1,), {"right": 2}) == [1, 2]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1,), {}, "input 'right' is missing (inputs: left, right)"),
        ((1, 2, 3), {}, "expected 2 inputs (left, right), got 3"),
        ((1,), {"left": 2}, "input 'left' is given twice, by position and by name"),
        ((1,), {"rihgt": 2}, "there is no input 'rihgt'; did you mean 'right'? (inputs: left, right)"),
    ],
)
def test_wrong_names(args, kwargs, message):
    with pytest.raises(InputError) as caught:
        bind(TWO, args, kwargs)
    assert str(caught.value) == message


def test_shapes_that_fit():
    ShapeChecker(TWO)([(2,), (2,)])
    ShapeChecker(SYMBOLIC)([(4, 3, 16), (4,), (16, 5)])
    ShapeChecker(SYMBOLIC)([(16, 3, 800), (16,), (800, 17)])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4, 3), (4,), (16, 5)], "input 'a': expected shape Nx3x8*H (N from 1 to 16, H 2 or more), got 4x3"),
        ([(4, 5, 16), (4,), (16, 5)], "got 4x5x16"),
        ([(4, 3, 17), (4,), (16, 5)], "got 4x3x17"),
        ([(17, 3, 16), (17,), (16, 5)], "got 17x3x16"),
        ([(0, 3, 16), (0,), (16, 5)], "got 0x3x16"),
        ([(4, 3, 8), (4,), (8, 5)], "got 4x3x8"),
        ([(4, 3, 16), (5,), (16, 5)], "input 'b': expected shape N with N = 4, as in input 'a', got 5"),
        ([(4, 3, 16), (4,), (24, 5)], "with H = 2, as in input 'a', got 24x5"),
    ],
)
def test_shapes_that_do_not(shapes, message):
    with pytest.raises(InputError) as caught:
        ShapeChecker(SYMBOLIC)(shapes)
    assert message in str(caught.value)


def test_a_fixed_shape():
    with pytest.raises(InputError, match=r"^input 'right': expected shape 2, got scalar$"):
        ShapeChecker(TWO)([(2,), ()])
