"""Products of two activations of bytes against numpy's integers, to the last bit."""

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from compiler.build.tile_functions import PIPELINE
from compiler.passes.kernels.narrow_matmul import narrow_matmul
from compiler.schedule.apply import schedule_kernel
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, run, runnable
from tests.schedule.test_integer import _bytes, _input


def _check(target, left, right, dtype="uint8", order_a=(), order_b=()):
    """Multiply what is stored as the orders say; `left` and `right` are the shapes that are meant."""
    a, b = _bytes(left, dtype), _bytes(right, "int8")
    stored_a = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, -a.shape[-1] % 4)])
    stored_a, stored_b = _stored(stored_a, order_a), _stored(b, order_b)
    inputs = [_input(stored_a, "a"), _input(stored_b, "b")]
    product = narrow_matmul(*inputs, lanes_of(target), order_a, order_b)
    got, rule = run(inputs, product, [stored_a, stored_b], target)
    assert rule == "matmul"
    np.testing.assert_array_equal(got, a.astype("int64") @ b.astype("int64"))


def _stored(array, order):
    return np.ascontiguousarray(array.transpose(np.argsort(order))) if order else array


SHAPES = {
    "scores": ((2, 3, 17, 32), (2, 3, 32, 19), (0, 2, 1, 3), (0, 2, 3, 1)),
    "values": ((2, 3, 17, 19), (2, 3, 19, 32), (), (0, 2, 1, 3)),
    "one matrix for all": ((5, 7, 40), (40, 48), (), (1, 0)),
    "many matrices for one": ((7, 8), (3, 8, 5), (), ()),
    "broadcast": ((2, 1, 6, 9), (1, 4, 9, 33), (), ()),
    "one row": ((1, 64), (64, 80), (), ()),
    "one column": ((30, 5), (5, 1), (), ()),
    "depth of one": ((6, 1), (1, 20), (), ()),
    "square": ((96, 100), (100, 96), (), (1, 0)),
}


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_orders(target, dtype, name):
    left, right, order_a, order_b = SHAPES[name]
    _check(cpu(target), left, right, dtype, order_a, order_b)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_extremes_do_not_saturate(dtype):
    info, target = np.iinfo(dtype), load("host")
    for x in (info.min, info.max):
        for w in (-128, 127):
            a, b = np.full((3, 2048), x, dtype), np.full((2048, 20), w, "int8")
            inputs = [_input(a, "a"), _input(b, "b")]
            got, _ = run(inputs, narrow_matmul(*inputs, lanes_of(target)), [a, b], target)
            np.testing.assert_array_equal(got, np.full((3, 20), 2048 * int(x) * w))


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    rows=st.integers(1, 40),
    depth=st.integers(1, 70),
    columns=st.integers(1, 50),
    turned=st.booleans(),
)
def test_any_size(batch, rows, depth, columns, turned):
    order = (0, 2, 1) if turned else ()
    _check(load("host"), (batch, rows, depth), (batch, depth, columns), order_b=order)


INSTRUCTIONS = [
    ("znver4", "uint8", "vpdpbusd"),
    ("x86-64-v4", "uint8", "vpmaddwd"),
    ("x86-64-v3", "int8", "vpmaddwd"),
    ("rpi5", "int8", "sdot"),
]


@pytest.mark.parametrize(("name", "dtype", "instruction"), INSTRUCTIONS)
def test_it_uses_the_dot_product(name, dtype, instruction):
    target = load(name)
    a, b = te.placeholder((2, 32, 64), dtype, "a"), te.placeholder((2, 48, 64), "int8", "b")
    function = te.create_prim_func([a, b, narrow_matmul(a, b, lanes_of(target), (), (0, 2, 1))])
    scheduled = schedule_kernel(function, target)[0].with_attr("global_symbol", "main")
    module = tvm.IRModule({"main": scheduled})
    built = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)
    assert built.inspect_source("s").count(instruction) > 4
