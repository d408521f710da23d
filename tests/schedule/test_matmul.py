import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from compiler.passes.kernels import dense as kernel
from compiler.schedule.matmul import Decisions, default, legal
from compiler.schedule.tiles import Tile
from compiler.target import load
from tests.schedule.kernels import cpu, placeholder, random, run, runnable


def _check_dense(target, rows, depth, outputs, lanes, decisions=None):
    x, weight, bias = random(*rows, depth), random(depth, outputs), random(outputs)
    packed = kernel.pack_dense_weights(weight, lanes)
    a, w, b = placeholder("a", *x.shape), placeholder("w", *packed.shape), placeholder("b", outputs)
    product = kernel.dense(a, w, outputs)
    out = te.compute(product.shape, lambda *i: tirx.max(product[i] + b[i[-1]], tirx.const(0, "float32")))
    got, rule = run([a, w, b], out, [x, packed, bias], target, decisions)
    assert rule == "matmul"
    expected = np.maximum(x.astype("float64") @ weight + bias, 0)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.sqrt(depth), rtol=1e-5)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("rows", [(1,), (7,), (197,), (1, 128), (3, 50), (2, 3, 5)])
@pytest.mark.parametrize(("depth", "outputs"), [(64, 192), (33, 40), (64, 33)])
def test_dense_layers(target, rows, depth, outputs):
    target = cpu(target)
    widest = max(4, target.lanes("float32"))
    lanes = max((n for n in (4, 8, 16) if outputs % n == 0 and n <= widest), default=widest)
    _check_dense(target, rows, depth, outputs, lanes)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 40), depth=st.integers(1, 50), outputs=st.integers(1, 70))
def test_dense_layers_of_any_size(rows, depth, outputs):
    _check_dense(load("host"), (rows,), depth, outputs, load("host").lanes("float32"))


@settings(max_examples=15, deadline=None)
@given(
    batch=st.sampled_from([(), (1,), (3,), (12,), (2, 5)]),
    rows=st.integers(1, 40),
    depth=st.integers(1, 40),
    columns=st.integers(1, 70),
)
def test_products_of_activations(batch, rows, depth, columns):
    x, y = random(*batch, rows, depth), random(*batch, depth, columns)
    a, b = placeholder("a", *x.shape), placeholder("b", *y.shape)
    got, rule = run([a, b], kernel.matmul(a, b), [x, y], load("host"))
    assert rule == "matmul"
    np.testing.assert_allclose(got, x.astype("float64") @ y, atol=1e-5 * np.sqrt(depth), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    batch=st.sampled_from([(), (1,), (3,), (2, 5)]),
    rows=st.integers(1, 40),
    depth=st.integers(1, 40),
    columns=st.integers(2, 70),
    transposed=st.booleans(),
)
def test_products_of_activations_that_are_packed_first(batch, rows, depth, columns, transposed):
    x, y = random(*batch, rows, depth), random(*batch, depth, columns)
    stored = np.ascontiguousarray(np.swapaxes(y, -1, -2)) if transposed else y
    axes = tuple(range(y.ndim))
    order = (*axes[:-2], axes[-1], axes[-2]) if transposed else axes
    a, b = placeholder("a", *x.shape), placeholder("b", *stored.shape)
    lanes = load("host").lanes("float32")
    got, rule = run([a, b], kernel.packed_matmul(a, b, lanes, (), order), [x, stored], load("host"))
    assert rule == "matmul"
    np.testing.assert_allclose(got, x.astype("float64") @ y, atol=1e-5 * np.sqrt(depth), rtol=1e-5)


def test_the_default_is_legal_and_no_larger_than_the_output():
    for target in map(load, ("x86-64-v3", "x86-64-v4", "rpi4")):
        for rows in (None, 1, 5, 128, 197):
            for vectors in (None, 1, 3, 7, 48):
                decisions = default(rows, vectors, 8, target, packed=True)
                assert decisions.tile in legal(target)
                assert decisions.tile.accumulators + decisions.tile.vectors + 1 < target.vector.registers
                assert rows is None or decisions.tile.rows <= rows
                assert vectors is None or decisions.tile.vectors <= vectors


def test_tasks_of_packed_products_take_whole_numbers_of_tiles():
    target = load("x86-64-v3")
    for rows in (1, 5, 128, 197):
        for vectors in (1, 7, 48):
            decisions = default(rows, vectors, 8, target, packed=True, row_bytes=4096.0)
            assert -(-rows // decisions.tile.rows) % decisions.chunk == 0
    assert default(None, 8, 8, target, packed=True).chunk is None
    assert default(128, 8, 8, target, packed=False).chunk is None


@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(4, 3), Tile(6, 2), Tile(9, 1), Tile(2, 5)], ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_every_tile_computes_the_same_in_any_chunks(tile, chunk):
    target = load("host")
    lanes = target.lanes("float32")
    decisions = Decisions(tile, lanes, chunk)
    for rows in (23, 24, 2):
        _check_dense(target, (rows,), 19, 7 * lanes - 2, lanes, decisions)
