"""Products with coded weights against numpy in float64, decoded in registers and before the tiles."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from compiler.passes.kernels.coded_dense import coded_dense
from compiler.passes.kernels.codes import Coding, coding_of, pack_codes
from compiler.passes.kernels.dense import pack_dense_weights
from compiler.schedule.decode import narrowed
from compiler.schedule.tiles import Tile
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, random, run, runnable

CODINGS = {
    "int8": (Coding("integer", 8, 4), [*range(-128, 128)]),
    "int4": (Coding("integer", 4, 8), [*range(-7, 8)]),
    "int2": (Coding("integer", 2, 16), [-1, 0, 1]),
    "log2": (Coding("power", 4, 8), [0, *(s << e for s in (1, -1) for e in range(7))]),
    "sign": (Coding("sign", 1, 32), [-1, 1]),
}


def _codes(kind, depth, outputs):
    """Random codes of a kind, with a column of each of the two extremes."""
    known = CODINGS[kind][1]
    codes = np.random.default_rng().choice(known, (depth, outputs)).astype("int8")
    codes[:, 0], codes[:, -1] = min(known), max(known)
    return codes


def _check(target, kind, rows, depth, outputs, group=0):
    lanes, codes = lanes_of(target), _codes(kind, depth, outputs)
    coding = coding_of(codes, group)
    words = pack_codes(codes, coding, lanes)
    x = random(*rows, words.shape[1] * coding.per)
    x[..., depth:] = 0
    arrays, expected = [x, words], codes.astype("float64")
    if group:
        scale = np.random.default_rng().uniform(0.5, 2, (-(-depth // group), outputs)).astype("float32")
        arrays.append(pack_dense_weights(scale, lanes))
        expected = expected * np.repeat(scale, group, 0)[:depth]
    inputs = [te.placeholder(a.shape, str(a.dtype), f"x{n}") for n, a in enumerate(arrays)]
    output = coded_dense(*inputs[:2], outputs, coding, *inputs[2:], group=group)
    got, rule = run(inputs, output, arrays, target)
    assert rule == "matmul"
    assert got.shape == (*rows, outputs)
    expected = x[..., :depth].astype("float64") @ expected
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("kind", CODINGS)
def test_the_coding_of_fewest_bits_is_found(kind):
    assert coding_of(_codes(kind, 64, 8)) == CODINGS[kind][0]
    assert coding_of(_codes(kind, 64, 8), 2).per == min(2, CODINGS[kind][0].per)


def test_minus_eight_takes_four_bits_no_more():
    """The lowest code of four bits, which no scheme here uses, has its own bit pattern."""
    codes = np.array([[-8, 7], [-1, 0]], "int8")
    assert coding_of(codes) == Coding("integer", 8, 4)
    (((first, second),),) = pack_codes(codes, Coding("integer", 4, 8), 2)
    assert [int(first) & 0xFF, int(second) & 0xFF] == [0xF8, 0x07]


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("kind", CODINGS)
@pytest.mark.parametrize(
    ("rows", "depth", "outputs", "group"),
    [((1,), 200, 53, 0), ((2, 20), 65, 33, 0), ((1, 3), 96, 64, 32)],
    ids=["one row", "many odd rows", "groups"],
)
def test_products(target, kind, rows, depth, outputs, group):
    _check(cpu(target), kind, rows, depth, outputs, group)


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(list(CODINGS)),
    rows=st.integers(1, 60),
    depth=st.integers(1, 130),
    outputs=st.integers(1, 70),
)
def test_products_of_any_size(kind, rows, depth, outputs):
    _check(load("host"), kind, (rows,), depth, outputs)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("group", [2, 8, 12])
def test_groups_of_any_size_and_a_shorter_last_one(rows, group):
    _check(load("host"), "int4", (rows,), 5 * group + 1, 20, group)


@pytest.mark.parametrize("kind", CODINGS)
def test_large_and_small_inputs_stay_exact(kind):
    """Sums of few terms, near both ends of float32: codes are decoded to their very values."""
    target, codes = load("host"), np.array(CODINGS[kind][1], "int8")[:, None]
    coding = CODINGS[kind][0]
    words = pack_codes(codes, coding, 4)
    for size in (1e-36, 1e36):
        x = np.zeros((len(codes), words.shape[1] * coding.per), "float32")
        x[range(len(codes)), range(len(codes))] = size
        inputs = [te.placeholder(a.shape, str(a.dtype), n) for a, n in ((x, "x"), (words, "w"))]
        got, _ = run(inputs, coded_dense(*inputs, 1, coding), [x, words], target)
        np.testing.assert_array_equal(got[:, 0], np.float32(size) * codes[:, 0].astype("float32"))


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_every_short_float_is_widened_to_its_very_value(target, kind, rows):
    """In registers and before the tiles: normal and denormal numbers, both zeros, the largest."""
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    codes = every[np.isfinite(every.astype("float32"))][None]
    target, outputs = cpu(target), codes.shape[1]
    coding, lanes = coding_of(codes), lanes_of(target)
    words, x = pack_codes(codes, coding, lanes), np.ones((rows, 1), "float32")
    assert words.nbytes == 2 * lanes * -(-outputs // lanes)
    inputs = [te.placeholder(a.shape, str(a.dtype), n) for a, n in ((x, "x"), (words, "w"))]
    got, rule = run(inputs, coded_dense(*inputs, outputs, coding), [x, words], target)
    assert rule == "matmul"
    np.testing.assert_array_equal(got, np.broadcast_to(codes.astype("float32"), got.shape))


def test_fewer_vectors_where_registers_are_few():
    wide, lanes = Tile(1, 8), 8

    def tile(name, kind):
        from tvm.s_tir import Schedule

        words = te.placeholder((4, 8, lanes), "int32", "w")
        coding = CODINGS[kind][0]
        x = te.placeholder((1, 8 * coding.per), "float32", "x")
        sch = Schedule(te.create_prim_func([x, words, coded_dense(x, words, 30, coding)]))
        return narrowed(sch, wide, load(name)).vectors

    assert tile("x86-64-v4", "int8") == 8
    assert tile("x86-64-v3", "int8") == 6
    assert tile("x86-64-v4", "sign") == 2, "32 codes of two vectors are unrolled"
