import numpy as np
import pytest

from compiler.frontend.random_inputs import choose_sizes, extent, random_inputs
from compiler.support.errors import InternalError
from compiler.support.signature import Signature, TensorSpec


def signature(*inputs, **dims):
    return Signature(tuple(TensorSpec(*each) for each in inputs), (), dims=dims)


def test_equal_seeds_give_equal_arrays():
    wanted = signature(("x", (2, 3), "float32"), ("n", (5,), "int64"), ("b", (9,), "bool"))
    first, again, other = (random_inputs(wanted, seed) for seed in (1, 1, 2))
    assert [(a.shape, str(a.dtype)) for a in first] == [((2, 3), "float32"), ((5,), "int64"), ((9,), "bool")]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_ranges_include_both_ends():
    (array,) = random_inputs(signature(("n", (1000,), "int32")), 0, ranges={"n": (-3, 3)})
    assert set(array.tolist()) == set(range(-3, 4))
    (array,) = random_inputs(signature(("x", (1000,), "float32")), 0, ranges={"x": (2, 3)})
    assert 2 <= array.min() < 2.1
    assert 2.9 < array.max() <= 3


def test_an_examples_values_bound_what_is_drawn():
    wanted = signature(("ids", (500,), "int64"), ("mask", (500,), "bool"), ("x", (500,), "float32"))
    examples = [np.array([4, 9]), np.array([True]), np.array([0, 1], "float32")]
    ids, mask, x = random_inputs(wanted, 0, examples=examples)
    assert (ids.min(), ids.max()) == (4, 9)
    assert mask.all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_constant_examples_do_not_make_constant_inputs():
    (x,) = random_inputs(signature(("x", (50,), "float32")), 0, examples=[np.ones(50, "float32")])
    assert x.std() > 0.5


def test_sizes_differ_from_the_examples_where_the_range_allows():
    dims = {"N": (1, None), "H": (4, 8), "W": (4, 8), "F": (5, 5)}
    chosen = choose_sizes(signature(**dims), {"N": 2, "H": 8, "W": 4, "F": 5})
    assert chosen == {"N": 3, "H": 7, "W": 5, "F": 5}
    assert choose_sizes(signature(**dims), {})["H"] == 4


def test_derived_dimensions_follow_from_their_symbols():
    (x,) = random_inputs(signature(("x", ("N", "8*H"), "float32"), N=(1, None), H=(2, 4)), 0, sizes={"H": 3})
    assert x.shape == (2, 32)
    assert extent("(N + 1)//2", {"N": 6}) == 3
    assert extent("N**2", {"N": 3}) == 9


@pytest.mark.parametrize("text", ["M", "__import__('os')", "N.real", "[N][0]"])
def test_a_dimension_is_arithmetic_only(text):
    with pytest.raises(InternalError):
        extent(text, {"N": 1})
