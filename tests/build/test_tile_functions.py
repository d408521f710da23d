"""Tiles become functions of their own, and what LLVM makes of them stays in its registers.

Assembly for another CPU needs no such CPU.
"""

import itertools
import re

import pytest
import tvm
from tvm import te, tirx
from tvm.s_tir import Schedule

from compiler.build.statements import map_statements
from compiler.build.tile_functions import PIPELINE, lowering_passes
from compiler.schedule import conv2d
from compiler.schedule.blocks import ISOLATE
from compiler.schedule.tiles import Tile
from compiler.target import load
from tests.build.assembly import functions, innermost_loops, listing
from tests.build.kernels import (
    convolution,
    dense_layer,
    lowered,
    narrow_convolution,
    product,
    scheduled,
    winograd_convolution,
)
from tests.schedule.kernels import placeholder

KERNELS = {
    "3x3, 56x56": convolution(64, 64, 56, 3),
    "3x3, 14x14": convolution(256, 256, 14, 3),
    "3x3 of stride 2": convolution(64, 128, 56, 3, stride=2),
    "1x1, 28x28": convolution(128, 512, 28, 1),
    "1x1, 13x13, an odd number of blocks": convolution(88, 440, 13, 1),
    "first layer, 7x7": convolution(3, 64, 224, 7, stride=2),
    "first layer, 3x3": convolution(3, 32, 224, 3, stride=2),
    "dense, one row": dense_layer(1, 512, 1000),
    "dense, 197 rows": dense_layer(197, 192, 768),
    "product": product(12, 128, 64, 128),
    "winograd, m = 4": winograd_convolution(64, 64, 56, 4),
    "winograd, m = 2": winograd_convolution(256, 256, 7, 2),
}
TARGETS = ("x86-64-v3", "x86-64-v4", "znver4", "rpi3", "rpi4")

_IN_ORDER = "LLVM's model of the in-order core loads far ahead"
SPILLS = {
    ("rpi3", "3x3, 14x14"): f"112 multiply-adds, 25 spills: {_IN_ORDER}",
    ("rpi3", "dense, 197 rows"): f"75 multiply-adds, 4 spills (5 by 5): {_IN_ORDER}",
}
"""What is known to spill, by target and kernel, with the tile's rows and vectors: to be mended."""

ROWS_TESTED = ("dense, 197 rows", "1x1, 13x13, an odd number of blocks")
"""Kernels a task of which has several tiles, one of them maybe the shorter last one: that tile alone, a
function of its own, tests each of its rows."""


def _case(name, reason, *values):
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(*values, marks=marks, id=name)


def _walk(stmt, kind):
    """Return the statements of a type inside of `stmt`."""
    found = []

    def look(each):
        if isinstance(each, kind):
            found.append(each)
        return each

    map_statements(stmt, look)
    return found


def _scopes(mod):
    """Return the tiles of a lowered module by their functions' names."""
    scopes = [s for s in _walk(mod["kernel"].body, tirx.AttrStmt) if s.attr_key == "compute_scope"]
    assert len({str(s.value.value) for s in scopes}) == len(scopes), "a name stands for one function"
    return {str(s.value.value): s.body for s in scopes}


def _local(stmt):
    return [a for a in _walk(stmt, tirx.AllocBuffer) if a.buffer.scope() == "local"]


def _pointwise(blocks, tile):
    """A 1x1 convolution of 6x6 images by `blocks` blocks of outputs, scheduled with `tile`."""
    target = load("x86-64-v3")
    inputs, output = convolution(16, 8 * blocks, 6, 1)(target)
    sch = Schedule(te.create_prim_func([*inputs, output]))
    assert conv2d.apply(sch, target, lambda name, space: conv2d.Decisions(tile, 1))
    function = sch.mod["main"].with_attr(ISOLATE, True).with_attr("global_symbol", "kernel")
    return lowered(tvm.IRModule({"kernel": function}), target, "OutlineTiles")


@pytest.mark.parametrize("target", ["x86-64-v3", "rpi4"])
@pytest.mark.parametrize("name", KERNELS)
def test_each_tile_is_a_function_with_its_own_accumulators(target, name):
    target = load(target)
    mod = lowered(scheduled(KERNELS[name], target), target, "OutlineTiles")
    scopes = _scopes(mod)
    assert scopes
    assert all(re.fullmatch(r"kernel_tile\d+(_full|_short)*", scope) for scope in scopes)
    assert all(_local(body) for body in scopes.values())
    inside = sum(len(_local(body)) for body in scopes.values())
    assert len(_local(mod["kernel"].body)) == inside, "no accumulator is allocated outside of its tile"
    assert all("disable_lower_builtin" in a.annotations for a in _local(mod["kernel"].body))


@pytest.mark.parametrize("target", ["x86-64-v3", "rpi4"])
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_is_tested_in_an_innermost_loop(target, name):
    target = load(target)
    scopes = _scopes(lowered(scheduled(KERNELS[name], target), target, "OutlineTiles"))
    tested = set()
    for scope, body in scopes.items():
        innermost = [loop for loop in _walk(body, tirx.For) if not _walk(loop.body, tirx.For)]
        if any(_walk(loop.body, tirx.IfThenElse) for loop in innermost):
            tested.add(scope)
    if name in ROWS_TESTED:
        tested = {scope for scope in tested if not scope.endswith("_short")}
    assert not tested


def test_tiles_of_one_width_are_one_function():
    assert list(_scopes(_pointwise(4, Tile(6, 2)))) == ["kernel_tile1"]


def test_a_shorter_last_tile_of_channels_is_chosen_outside_of_the_tile():
    scopes = _scopes(_pointwise(5, Tile(6, 2)))
    assert sorted(scopes) == ["kernel_tile1_full", "kernel_tile1_short"]
    assert not any(_walk(body, tirx.IfThenElse) for body in scopes.values())

    def updates(body):
        loops = _walk(body, tirx.For)
        return len([s for s in _walk(loops[-1], tirx.BufferStore) if s.buffer.scope() == "local"])

    # Six columns, of one vector each in the last tile.
    assert updates(scopes["kernel_tile1_full"]) == 2 * updates(scopes["kernel_tile1_short"])


def test_kernels_without_the_attribute_stay_as_they_are():
    target = load("x86-64-v3")
    mod = scheduled(KERNELS["3x3, 14x14"], target)
    plain = tvm.IRModule({"kernel": mod["kernel"].without_attr(ISOLATE)})
    passes = {each.info.name: each for each in lowering_passes()}
    before = lowered(plain, target, "VectorizeLoop")
    tvm.ir.assert_structural_equal(passes["PlaceTiles"](before), before)
    tvm.ir.assert_structural_equal(passes["OutlineTiles"](before), before)
    assert not _scopes(lowered(plain, target, "OutlineTiles"))


def test_local_buffers_of_every_kernel_lie_on_the_stack():
    target = load("x86-64-v3")
    a, k = placeholder("a", 70, 64), te.reduce_axis((0, 70), "k")
    mod = scheduled(lambda _: ([a], te.compute((64,), lambda j: te.sum(a[k, j], axis=k))), target)
    local = _local(lowered(mod, target, "LocalOnStack")["kernel"].body)
    assert local
    assert all("disable_lower_builtin" in allocation.annotations for allocation in local)


def test_the_pipeline_is_in_tvms_table():
    assert tirx.compilation_pipeline.PIPELINE_MAP[PIPELINE]
    names = [each.info.name for each in lowering_passes()]
    assert names.index("PlaceTiles") < names.index("tirx.StorageRewrite") < names.index("OutlineTiles")


def _machine_code():
    """Return the pairs of target and kernel; those that are known to spill are expected to."""
    pairs = itertools.product(TARGETS, KERNELS)
    return [_case(f"{target}, {name}", SPILLS.get((target, name)), target, name) for target, name in pairs]


@pytest.mark.parametrize(("target", "name"), _machine_code())
def test_the_innermost_loops_multiply_and_load_and_nothing_else(target, name):
    target = load(target)
    found = functions(listing(scheduled(KERNELS[name], target), target))
    tiles = {symbol: lines for symbol, lines in found.items() if re.match(r"kernel_tile\d+", symbol)}
    assert tiles
    loops = [
        (s, loop) for s, lines in tiles.items() for loop in innermost_loops(lines, target) if loop.multiplies
    ]
    # The widest loop has the accumulators of a whole tile: with fewer than eight the units would wait.
    assert max(loop.multiplies for _, loop in loops) >= 8
    spills = {symbol: (loop.multiplies, len(loop.spills)) for symbol, loop in loops if loop.spills}
    assert not spills, f"multiply-adds and spills: {spills}"
    others = {symbol: dict(loop.others) for symbol, loop in loops if loop.others}
    assert not others


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
@pytest.mark.parametrize("size", [56, 28, 14, 7])
def test_tiles_of_narrow_numbers_stay_in_their_registers(dtype, size):
    """Unrolled over the kernel's columns, inputs that columns of the output share would take all of them."""
    target = load("znver4")
    found = functions(listing(scheduled(narrow_convolution(dtype, 256, 256, size, 3), target), target))
    loops = [
        loop
        for symbol, lines in found.items()
        if re.match(r"kernel_tile\d+", symbol)
        for loop in innermost_loops(lines, target)
        if loop.multiplies
    ]
    assert max(loop.multiplies for loop in loops) >= 8
    assert not [loop.spills for loop in loops if loop.spills]
