import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.schedule.window import Decisions, default, legal_columns
from compiler.target import load
from tests.schedule.convolutions import check, geometry
from tests.schedule.kernels import cpu, random, runnable


def _check(target, channels, size, kernel, batch=1, decisions=None, **options):
    """Compare with PyTorch on `size` (rows, columns) and `kernel` (rows, columns)."""
    shape = geometry(groups=channels, **options)
    check(target, random(batch, channels, *size), random(channels, 1, *kernel), shape, decisions=decisions)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "options"),
    [
        (24, (8, 31), (3, 3), {}),
        (17, (15, 15), (5, 5), {"strides": (2, 1), "padding": (2, 2, 2, 2)}),
        (16, (14, 14), (7, 7), {"padding": (3, 3, 3, 3)}),
        (9, (13, 11), (3, 3), {"strides": (2, 2), "padding": (0, 0, 1, 1)}),
        (8, (12, 19), (3, 5), {"padding": (2, 0, 1, 3), "dilation": (1, 2)}),
        (16, (9, 9), (3, 3), {"padding": (2, 2, 2, 2), "dilation": (2, 2)}),
        (16, (10, 10), (3, 3), {"padding": (0, 0, 0, 0)}),
        (8, (1, 1), (3, 3), {}),
        (8, (2, 3), (7, 7), {"padding": (3, 3, 3, 3)}),
        (5, (7, 1), (1, 1), {"strides": (3, 3), "padding": (0, 0, 0, 0)}),
        (8, (4, 4), (3, 3), {"padding": (3, 3, 3, 3)}),
    ],
    ids=str,
)
def test_depthwise_convolutions(target, channels, size, kernel, options):
    _check(cpu(target), channels, size, kernel, **options)


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(2, 40),
    kernel=st.sampled_from([1, 2, 3, 5, 7]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    batch=st.integers(1, 2),
)
def test_any_geometry(size, channels, kernel, strides, dilation, padding, batch):
    reach = dilation * (kernel - 1) + 1
    least = [max(1, reach - padding[axis] - padding[axis + 2]) for axis in (0, 1)]
    size = tuple(max(pair) for pair in zip(size, least, strict=True))
    options = {"strides": strides, "padding": padding, "dilation": (dilation, dilation)}
    _check(load("host"), channels, size, (kernel, kernel), batch, **options)


@pytest.mark.parametrize("columns", [1, 2, 5, 7])
@pytest.mark.parametrize("chunk", [1, 3, 9])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_every_tile_computes_the_same(columns, chunk, strides):
    _check(load("host"), 16, (9, 13), (3, 3), decisions=Decisions(columns, chunk), strides=strides)


def test_the_default_is_legal_and_fits_the_registers():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4", "riscv64"):
        target = load(name)
        legal = legal_columns(target)
        # Accumulators, as many inputs, a weight and one spare.
        assert 2 * legal[-1] + 2 <= target.vector.registers
        for rows in (None, 1, 7, 56):
            for columns in (None, 1, 7, 13, 56, 113):
                for others in (None, 1, 24):
                    decisions = default(rows, columns, others, target)
                    assert decisions.columns in legal
                    assert columns is None or decisions.columns <= columns
                    assert 1 <= decisions.chunk <= (rows or 1)


def test_the_default_has_the_fewest_tiles_and_of_these_the_most_even():
    target = load("x86-64-v3")  # 7 columns at most
    tiles = {columns: default(56, columns, 4, target).columns for columns in (3, 7, 8, 14, 15, 28, 56, 113)}
    assert tiles == {3: 3, 7: 7, 8: 4, 14: 7, 15: 5, 28: 7, 56: 7, 113: 7}
