import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.passes.kernels.winograd import SIZES, matrices, winograd_weights
from compiler.schedule.tiles import Tile
from compiler.schedule.winograd import Decisions, default
from compiler.target import load
from tests.schedule.convolutions import compute, expected, geometry
from tests.schedule.kernels import cpu, lanes_of, random, runnable

ERROR = {2: 1e-6, 4: 5e-6}
"""The error of one layer over its output's range, by m, for normal inputs: what the choice counts on."""


def _check(target, data, weight, m, *, padding=(1, 1, 1, 1), decisions=None):
    """Compare with PyTorch in float64, with a residual and a ReLU."""
    shape = geometry(padding=padding)
    exact = expected(data, weight, shape)
    residual = random(*exact.shape)
    got, rule = compute(target, data, weight, shape, residual, m=m, decisions=decisions)
    assert rule == "winograd"
    wanted = (exact + torch.from_numpy(residual).double()).relu().numpy()
    # The range of few outputs says little: each sums 9 products a channel, of unit variance.
    spread = max(float(exact.max() - exact.min()), 6 * np.sqrt(9 * data.shape[1]))
    assert np.abs(got - wanted).max() <= ERROR[m] * spread


@pytest.mark.parametrize("m", SIZES)
def test_the_matrices_compute_a_correlation_exactly(m):
    """A^T [(G g) * (B^T d)] is the correlation of three weights g with m + 2 inputs d."""
    t = matrices(m)
    rng = np.random.default_rng(m)
    for _ in range(50):
        g, d = rng.standard_normal(3), rng.standard_normal(m + 2)
        got = t.output @ ((t.weight @ g) * (t.input @ d))
        # 1e-12: some hundred roundings of float64.
        np.testing.assert_allclose(got, np.correlate(d, g, "valid"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", SIZES)
def test_the_shapes_of_the_matrices(m):
    t = matrices(m)
    assert (t.output.shape, t.weight.shape, t.input.shape) == ((m, m + 2), (m + 2, 3), (m + 2, m + 2))
    assert all(matrix.dtype == np.float64 for matrix in (t.output, t.weight, t.input))


@pytest.mark.parametrize("m", SIZES)
def test_no_factor_is_large(m):
    """Large factors lose digits: the points were chosen for small ones."""
    t = matrices(m)
    assert max(np.abs(matrix).max() for matrix in (t.output, t.weight, t.input)) < 3


@pytest.mark.parametrize("m", SIZES)
def test_packed_weights_are_transformed_and_padded_with_zeros(m):
    weight, g = random(5, 3, 3, 3), matrices(m).weight
    packed = winograd_weights(weight, 4, m)
    assert packed.shape == ((m + 2) ** 2, 2, 1, 4, 4)
    position = packed.reshape(m + 2, m + 2, 2, 1, 4, 4)
    moved = g @ weight[4, 2].astype("float64") @ g.T
    np.testing.assert_allclose(position[:, :, 1, 0, 2, 0], moved, rtol=1e-6, atol=1e-7)
    assert (position[:, :, 1, 0, :, 1:] == 0).all()
    assert (position[:, :, :, :, 3] == 0).all()


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize(
    ("data", "outputs", "padding"),
    [
        ((1, 32, 16, 16), 32, (1, 1, 1, 1)),
        ((1, 16, 7, 7), 40, (1, 1, 1, 1)),
        ((3, 20, 9, 13), 33, (1, 1, 1, 1)),
        ((2, 16, 11, 5), 16, (0, 0, 0, 0)),
        ((1, 9, 10, 8), 7, (0, 2, 1, 0)),
        ((1, 16, 3, 3), 16, (0, 0, 0, 0)),
        ((1, 8, 1, 6), 24, (1, 1, 1, 1)),
        ((1, 8, 6, 6), 8, (2, 2, 2, 2)),
    ],
    ids=str,
)
def test_odd_shapes(target, m, data, outputs, padding):
    _check(cpu(target), random(*data), random(outputs, data[1], 3, 3), m, padding=padding)


@settings(max_examples=10, deadline=None)
@given(
    m=st.sampled_from(SIZES),
    images=st.integers(1, 3),
    size=st.tuples(st.integers(3, 22), st.integers(3, 22)),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_any_geometry(m, images, size, inputs, outputs, padding):
    weight = random(outputs, inputs, 3, 3)
    _check(load("host"), random(images, inputs, *size), weight, m, padding=padding)


@pytest.mark.parametrize("m", SIZES)
def test_the_error_for_normal_inputs(m):
    """Without a residual, over more channels than a small layer has."""
    data, weight, shape = random(1, 256, 14, 14, seed=1), random(64, 256, 3, 3, seed=2), geometry()
    exact = expected(data, weight, shape)
    nothing = np.zeros(exact.shape, "float32")
    got, _ = compute(load("host"), data, weight, shape, nothing, m=m)
    error = np.abs(got - exact.relu().numpy()).max()
    assert error < ERROR[m] * float(exact.max() - exact.min())


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(4, 3), Tile(6, 2), Tile(5, 1)], ids=str)
def test_every_tile_computes_the_same(m, tile):
    target = load("host")
    outputs = 5 * lanes_of(target)
    _check(target, random(2, 12, 9, 7), random(outputs, 12, 3, 3), m, decisions=Decisions(tile))


def test_the_default_fits_the_registers():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4", "riscv64"):
        target = load(name)
        for tiles in (1, 4, 16, 49, 196):
            for blocks in (1, 3, 8, 64):
                tile = default(tiles, blocks, target).tile
                assert tile.accumulators + tile.vectors + 1 < target.vector.registers
                assert tile.rows <= tiles
                assert tile.vectors <= blocks
