"""Dot products of four bytes, each instruction against numpy on extremes and on random bytes."""

import itertools

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.s_tir import Schedule

from compiler.build.tile_functions import PIPELINE
from compiler.schedule.dot_product import DOT_PRODUCT, instruction, temporaries
from compiler.target import load
from tests.schedule.kernels import cpu, runnable

EXTREMES = {"uint8": [0, 1, 127, 128, 254, 255], "int8": [-128, -127, -1, 0, 1, 127]}
"""Where a saturating step, or one that takes signed for unsigned bytes, would give another sum."""


def _kernel(target, dtype, rows):
    """Sums of `rows` dot products, one a row: (rows, 4) by (rows, lanes, 4) gives (rows, lanes)."""
    lanes = max(4, target.lanes("int32"))
    x = te.placeholder((rows, 4), dtype, "x")
    w = te.placeholder((rows, lanes, 4), "int8", "w")
    k, twice = te.reduce_axis((0, 4), "k"), te.reduce_axis((0, 2), "twice")
    out = te.compute(
        (rows, lanes),
        lambda r, v: te.sum(x[r, k].astype("int32") * w[r, v, k].astype("int32"), axis=[twice, k]),
        name="dot",
    )
    sch = Schedule(te.create_prim_func([x, w, out]))
    block = sch.get_sblock("dot")
    copy = sch.cache_write(block, 0, "local")
    row, lane = sch.get_loops(copy)
    sch.vectorize(lane)
    sch.compute_at(block, row, preserve_unit_loops=True)
    _, _, lane, outer, four = sch.get_loops(block)
    sch.reorder(outer, lane, four)
    zero = sch.decompose_reduction(block, outer)
    sch.vectorize(sch.get_loops(zero)[-1])
    sch.annotate(lane, DOT_PRODUCT, instruction(target, dtype))
    return sch.mod["main"].with_attr("global_symbol", "kernel"), lanes


def _library(target, dtype, rows):
    function, lanes = _kernel(target, dtype, rows)
    return tvm.tirx.build(tvm.IRModule({"kernel": function}), target.tvm_target(), pipeline=PIPELINE), lanes


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", EXTREMES)
def test_extremes_and_random_bytes(target, dtype):
    target = cpu(target)
    pairs = list(itertools.product(EXTREMES[dtype], EXTREMES[dtype], [-128, -127, -1, 0, 127], [-128, 127]))
    rng = np.random.default_rng()
    rows = len(pairs) + 200
    library, lanes = _library(target, dtype, rows)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, (rows, 4)).astype(dtype)
    w = rng.integers(-128, 128, (rows, lanes, 4)).astype("int8")
    for row, (a, b, c, d) in enumerate(pairs):
        x[row], w[row, ::2], w[row, 1::2] = [a, b, a, b], [c, d, c, d], [c, c, d, d]
    out = tvm.runtime.tensor(np.zeros((rows, lanes), "int32"))
    library["kernel"](tvm.runtime.tensor(x), tvm.runtime.tensor(w), out)
    expected = 2 * np.einsum("rk,rvk->rv", x.astype("int64"), w.astype("int64"))
    np.testing.assert_array_equal(out.numpy(), expected)


INSTRUCTIONS = [
    ("znver4", "uint8", "vpdpbusd"),
    ("sapphirerapids", "uint8", "vpdpbusd"),
    ("x86-64-v4", "uint8", "vpmaddwd"),
    ("x86-64-v3", "uint8", "vpmaddwd"),
    ("x86-64-v2", "uint8", "pmaddwd"),
    ("rpi5", "int8", "sdot"),
    ("apple-m1-cpu", "int8", "sdot"),
]


@pytest.mark.parametrize(("name", "dtype", "instruction"), INSTRUCTIONS)
def test_each_target_gets_its_instruction(name, dtype, instruction):
    target = load(name)
    function, _ = _kernel(target, dtype, 3)
    library = tvm.tirx.build(tvm.IRModule({"kernel": function}), target.tvm_target(), pipeline=PIPELINE)
    text = (
        library.inspect_source("s") if hasattr(library, "inspect_source") else library.mod.inspect_source("s")
    )
    assert instruction in text
    assert "pmaddubsw" not in text, "it saturates"


def test_one_instruction_leaves_more_registers():
    assert temporaries(load("znver4"), "uint8") < temporaries(load("x86-64-v3"), "uint8")
    assert temporaries(load("rpi5"), "int8") < temporaries(load("rpi4"), "int8")
    assert temporaries(load("znver4"), "bfloat16") < temporaries(load("x86-64-v3"), "bfloat16")
