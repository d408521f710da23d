import numpy as np
import pytest

from compiler.compress.grids import activation_grid, weight_grid
from compiler.compress.observers import Observer
from compiler.compress.ranges import MinMax, Percentile
from compiler.compress.scheme import PRESETS, Log2
from compiler.support.errors import InputError, UsageError

WEIGHTS = np.random.default_rng(0).standard_normal((16, 256)).astype(np.float32)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_weights(name):
    grid = weight_grid(WEIGHTS, PRESETS[name].weights)
    codes = grid.encode(WEIGHTS)
    values = grid.decode(codes)
    assert codes.shape == values.shape == WEIGHTS.shape
    assert values.dtype == np.float32
    # Fewer than 4 bits lose most of it; none turns the signs.
    assert (values * WEIGHTS >= 0).all()
    assert grid.notes == ()


def test_more_bits_and_smaller_groups_are_closer():
    def error(name):
        grid = weight_grid(WEIGHTS, PRESETS[name].weights)
        return np.square(grid.decode(grid.encode(WEIGHTS)) - WEIGHTS).mean()

    for finer, coarser in [
        ("fp16", "bf16"),
        ("bf16", "int8"),
        ("int8", "int8-tensor"),
        ("int4-g32", "int4-g128"),
        ("int4-g128", "int4"),
        ("int4", "int3"),
        ("int3", "int2"),
        ("log2", "binary"),
    ]:
        assert error(finer) < error(coarser), (finer, coarser)


def test_axes_are_the_callers():
    scheme = PRESETS["int4-g64"]
    turned = weight_grid(WEIGHTS.T, scheme.weights, channel_axis=1, group_axis=0)
    straight = weight_grid(WEIGHTS, scheme.weights)
    np.testing.assert_array_equal(turned.encode(WEIGHTS.T).T, straight.encode(WEIGHTS))


def test_activations():
    observer = Observer()
    observer.update(np.append(np.linspace(0, 1, 99_999), 100))
    quantizer = PRESETS["int8"].activations
    np.testing.assert_allclose(activation_grid(observer, quantizer, MinMax()).scale, 100 / 255, rtol=1e-6)
    narrow = activation_grid(observer, quantizer, Percentile(99))
    np.testing.assert_allclose(narrow.scale, 1 / 255, rtol=0.05)
    binary = activation_grid(observer, PRESETS["binary-xnor"].activations, MinMax())
    np.testing.assert_allclose(binary.scale, 0.501, atol=0.01)
    half = activation_grid(observer, PRESETS["fp16"].activations, MinMax())
    assert half.encode(np.ones(2)).dtype == np.float16


def test_activations_that_cannot_be():
    with pytest.raises(UsageError, match="expected linear, binary or 16-bit float activations, got 4-bit"):
        activation_grid(Observer(), Log2(), MinMax())
    for name in ("int8", "binary-xnor"):
        with pytest.raises(InputError, match="never computed"):
            activation_grid(Observer(), PRESETS[name].activations, MinMax())
    constant = Observer()
    constant.update(np.zeros(3))
    grid = activation_grid(constant, PRESETS["int8"].activations, MinMax())
    assert "empty range" in grid.notes[0]
