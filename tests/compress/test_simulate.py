"""A simulation computes what any plan does, without another compilation."""

import numpy as np
import pytest

from compiler.compress.recipe import Recipe
from compiler.compress.scheme import scheme_named
from tests.compress.nets import build, mixed, residual
from tests.compress.test_quantizer import calibrated


@pytest.mark.parametrize("net", [residual, mixed])
@pytest.mark.parametrize("kept", [(), ("conv2d_0",), ("conv2d_1", "conv2d_2"), ("*",)])
def test_a_simulation_computes_what_the_quantized_model_computes(net, kept):
    quantizer, arrays, exact = calibrated(net)
    simulation = quantizer.simulation()
    simulate = build(simulation.mod, simulation.signature)
    if kept == ("*",):
        kept = [layer.name for layer in quantizer.most.layers]
        run = exact
    choice = quantizer.choose(dict.fromkeys(kept, ""))
    if choice.plan.layers:
        run = build(quantizer.rounded(choice), None)
    for array in arrays:
        got = simulate([array, *simulation.switches(choice.plan, choice.grids).arrays])[0]
        expected = run([array])[0]
        # The error of weights is added to a layer's sum instead of to its weights; a code may differ.
        assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()
        assert np.median(np.abs(got - expected)) < 1e-3 * np.abs(expected).max()


SCHEMES = ["int8-weight-only", "int4-g32", "log2", "log2-weight-only", "binary", "binary-xnor", "bf16"]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("kept", [(), ("conv2d_1",)])
def test_every_scheme_can_be_simulated(name, kept):
    quantizer, arrays, _exact = calibrated(residual, Recipe(scheme=scheme_named(name)), 2)
    simulation = quantizer.simulation()
    choice = quantizer.choose(dict.fromkeys(kept, ""))
    switches = simulation.switches(choice.plan, choice.grids).arrays
    simulate, run = build(simulation.mod, None), build(quantizer.quantized(choice), None)
    assert len(choice.plan.layers) == (2 if "binary" in name else 4) - len(kept)
    for array in arrays:
        got, expected = simulate([array, *switches])[0], run([array])[0]
        assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
        assert np.median(np.abs(got - expected)) < 2e-3 * np.abs(expected).max()


def test_values_inside_are_given_after_the_outputs():
    quantizer, arrays, _exact = calibrated(residual)
    inside = [layer.group.output for layer in quantizer.most.layers]
    simulation = quantizer.simulation(inside)
    assert [spec.name for spec in simulation.signature.inputs][:2] == ["x", "kiln_scales"]
    choice = quantizer.choose({})
    got = build(simulation.mod, None)([arrays[0], *simulation.switches(choice.plan, choice.grids).arrays])
    assert [array.shape[1] for array in got] == [4, 8, 8, 8, 4]
    grid = choice.grids[choice.plan.bytes[inside[0]]]
    np.testing.assert_array_equal(grid.decode(grid.encode(got[1])), got[1])
