"""From a model and a recipe to what can be made of them."""

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from compiler.compress.calibrate import calibrate
from compiler.compress.fidelity import Fidelity
from compiler.compress.quantizer import Quantizer
from compiler.compress.ranges import MinMax
from compiler.compress.recipe import Recipe
from compiler.compress.scheme import Binary, Linear, PerTensor, Scheme, scheme_named
from compiler.support.errors import InputError, ModelError, UsageError
from tests.compress.nets import build, conv, data, mixed, model, relu, residual, samples
from tests.passes.graphs import operators

R = relax.op
SHAPE = (1, 3, 16, 16)


def calibrated(net, recipe=None, count=4):
    """Return a quantizer with statistics, the samples, and what runs the model in float."""
    given = model(net, x=SHAPE)
    quantizer = Quantizer(given, recipe or Recipe())
    arrays = samples(count, *SHAPE)
    exact = build(quantizer.observing(), given.signature)
    quantizer.use(calibrate(lambda a: exact(a)[1:], data(given, arrays), quantizer.observers()))
    return quantizer, arrays, lambda a: exact(a)[:1]


def sqnr(exact, run, arrays):
    fidelity = Fidelity(["y"])
    for array in arrays:
        fidelity.add(exact([array]), run([array])[:1])
    return fidelity.outputs[0].sqnr


@pytest.mark.parametrize("net", [residual, mixed])
def test_a_quantized_network_is_near_the_one_in_float(net):
    """Eight bits round each value to within 1/510 of its range.

    For values some 4 deviations wide that is an error 40 dB below them; a few such errors (each of four
    layers has two operands that are rounded) add up to 9 dB.
    """
    quantizer, arrays, exact = calibrated(net)
    rounded = build(quantizer.quantized(quantizer.choose({})), None)
    assert sqnr(exact, rounded, arrays) > 31


def test_layers_have_quantized_operands_and_no_other_operator_is_there():
    quantizer, _, _ = calibrated(residual)
    mod = quantizer.quantized(quantizer.choose({}))
    layer = ["dequantize", "nn.conv2d", "add", "add"]
    rounding = ["quantize", "dequantize"]
    assert operators(mod) == [
        *rounding, *layer, "nn.relu", *rounding, *layer, "nn.relu", *rounding,
        *layer, "add", "nn.relu", *rounding, *layer,
    ]  # fmt: skip


def test_relu_has_the_zero_point_zero_and_parts_of_a_concatenation_one_grid():
    quantizer, _, _ = calibrated(mixed)
    choice = quantizer.choose({})
    grids = {
        quantizer.structure.names[var]: choice.grids[stands] for var, stands in choice.plan.bytes.items()
    }
    assert all(int(grid.zero_point) == 0 for name, grid in grids.items() if name != "x")
    assert int(grids["x"].zero_point) > 0
    joined = {name: float(grids[name].scale) for name in ("conv2d_0", "conv2d_2", "concat_0", "max_pool2d_0")}
    assert len(set(joined.values())) == 1
    highest = max(
        quantizer.ranges[var][1] for var in choice.plan.observed[choice.plan.bytes[_var(quantizer)]]
    )
    assert joined["concat_0"] == pytest.approx(highest / 255)


def _var(quantizer):
    return next(var for var, name in quantizer.structure.names.items() if name == "concat_0")


def test_bias_correction_takes_the_mean_error_away():
    """Weights of 3 bits err so much that the mean of a layer's error is plain to see."""
    recipe = Recipe(scheme=scheme_named("int3"), method=MinMax())
    errors = {}
    for corrected in (True, False):
        quantizer, arrays, exact = calibrated(
            lambda emit, x: conv(emit, relu(emit, x), 3, 32, kernel=1),
            replace(recipe, bias_correction=corrected),
        )
        rounded = build(quantizer.quantized(quantizer.choose({})), None)
        difference = [rounded([array])[0] - exact([array])[0] for array in arrays]
        errors[corrected] = np.abs(np.mean(difference, (0, 1, 3, 4))).max()
    assert errors[True] < 0.05 * errors[False]


def test_what_the_network_returns_is_not_rounded_where_others_read_it_rounded():
    given = model(lambda emit, x: [y := relu(emit, conv(emit, x, 3, 8)), conv(emit, y, 8, 4)], x=SHAPE)
    quantizer = Quantizer(given, Recipe())
    arrays = samples(2, *SHAPE)
    exact = build(quantizer.observing(), given.signature)
    quantizer.use(calibrate(lambda a: exact(a)[2:], data(given, arrays), quantizer.observers()))
    first, second = build(quantizer.quantized(quantizer.choose({})), None)([arrays[0]])
    expected, other = exact([arrays[0]])[:2]
    # Only the input is rounded before it: there are more values than a grid has.
    assert len(np.unique(first)) > 256
    assert np.abs(first - expected).max() < 0.05
    assert 0 < np.abs(second - other).max() < 0.1


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        (Recipe(skip=("conv2d_1",)), {"conv2d_1": "the recipe skips 'conv2d_1'"}),
        (
            Recipe(skip=("conv2d_[12]",)),
            dict.fromkeys(["conv2d_1", "conv2d_2"], "the recipe skips 'conv2d_[12]'"),
        ),
        (Recipe(first="float"), {"conv2d_0": "the recipe keeps the first layer in float"}),
        (Recipe(last="float"), {"conv2d_3": "the recipe keeps the last layer in float"}),
    ],
)
def test_recipes_keep_layers_in_float(recipe, kept):
    quantizer = Quantizer(model(residual, x=SHAPE), recipe)
    assert quantizer.reasons == kept
    assert {layer.name for layer in quantizer.most.layers} == {f"conv2d_{i}" for i in range(4)} - set(kept)


def test_wrong_recipes_are_refused():
    given = model(residual, x=SHAPE)
    with pytest.raises(UsageError, match=r"no layer 'conv2d_9'.*did you mean 'conv2d_\d'.*layers: conv2d_0"):
        Quantizer(given, Recipe(skip=("conv2d_9",)))
    with pytest.raises(ModelError, match=r"nothing of made up is left to quantize: the recipe skips '\*'"):
        Quantizer(given, Recipe(skip=("*",)))
    with pytest.raises(ModelError, match="nothing to quantize in made up: it has no convolution"):
        Quantizer(model(lambda emit, x: R.nn.relu(x), x=SHAPE), Recipe())
    with pytest.raises(UsageError, match=r"scheme 'mixed' .* cannot be applied"):
        Quantizer(given, Recipe(scheme=Scheme("mixed", Linear(), Binary(PerTensor()), dynamic=True)))


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [({}, {0, 3}), ({"first": "quantize"}, {3}), ({"first": "quantize", "last": "quantize"}, set())],
)
def test_of_binary_models_the_ends_stay_in_float_unless_a_recipe_says_otherwise(recipe, kept):
    quantizer = Quantizer(model(residual, x=SHAPE), Recipe(scheme=scheme_named("binary-xnor"), **recipe))
    assert set(quantizer.reasons) == {f"conv2d_{number}" for number in kept}
    assert all("scheme 'binary-xnor' keeps the" in reason for reason in quantizer.reasons.values())


def test_statistics_of_another_model_are_refused():
    first, _, _ = calibrated(residual)
    second = Quantizer(model(mixed, x=SHAPE), Recipe())
    with pytest.raises(InputError, match="statistics lack"):
        second.use(first.statistics)


def test_weights_that_are_not_finite_name_their_layer():
    def net(emit, x):
        weight = np.ones((4, 3, 1, 1), "float32")
        weight[1, 2] = np.nan
        return R.nn.conv2d(x, relax.const(weight))

    quantizer = Quantizer(model(net, x=SHAPE), Recipe())
    with pytest.raises(ModelError, match=r"weights of layer 'conv2d_0' cannot be quantized: .*nan"):
        assert quantizer.weights
