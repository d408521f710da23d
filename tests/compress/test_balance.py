"""Channels are balanced behind norms and activations; the network computes what it did, and loses less."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.balance import balance, balanced, expected_error, sites_of
from compiler.compress.calibrate import calibrate
from compiler.compress.observers import Channels
from compiler.compress.quantizer import Quantizer
from compiler.compress.recipe import Recipe
from compiler.compress.scheme import scheme_named
from compiler.ir.constants import array_of
from tests.compress.nets import build, data, dense, model
from tests.passes.graphs import operators

R = relax.op
SHAPE = (1, 12, 16)
WIDE = 256


def _norm(emit, x, width=16, wild=3):
    """Return a norm one of whose channels is scaled far beyond the others."""
    gamma = np.random.default_rng(1).uniform(0.5, 1.5, width).astype("float32")
    gamma[wild] *= 40
    shift = np.random.default_rng(2).normal(0, 0.2, width).astype("float32")
    return emit(R.nn.layer_norm(x, relax.const(gamma), relax.const(shift), axes=[-1]))


def before(emit, x):
    """A norm that matrix products alone read."""
    y = _norm(emit, x)
    return emit(R.add(dense(emit, y, 16, 8), dense(emit, y, 16, 8)))


def after(emit, x):
    """A norm that the residual sum reads, too, and then another norm."""
    y = _norm(emit, x)
    return _norm(emit, emit(R.add(dense(emit, y, 16, 16), y)), wild=5)


def moved(emit, x):
    """A norm that is turned on the way."""
    y = emit(R.permute_dims(_norm(emit, x), [1, 0, 2]))
    return dense(emit, y, 16, 8)


def activated(emit, x):
    """An activation that is far out in one channel."""
    bias = np.zeros(WIDE, "float32")
    bias[7] = 60
    weight = np.random.default_rng(0).normal(0, 0.3, (16, WIDE)).astype("float32")
    y = emit(R.nn.gelu(emit(R.add(emit(R.matmul(x, relax.const(weight))), relax.const(bias)))))
    return dense(emit, emit(R.reshape(y, (12, WIDE))), WIDE, 8)


def _arrays(count=6, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(SHAPE).astype("float32") for _ in range(count)]


def _made(net, **recipe):
    given = model(net, x=SHAPE)
    before_it = Quantizer(given, Recipe(**recipe))
    return given, balanced(before_it, sites_of(before_it), data(given, _arrays()), build)


def _run(mod, arrays):
    run = build(mod, None)
    return np.concatenate([run([array])[0].reshape(1, -1) for array in arrays])


def _constants(mod):
    """Return the arrays that operators of ``main`` read, in order."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    operands = [operand for value in values for operand in getattr(value, "args", ())]
    return [array for array in map(array_of, operands) if array is not None]


def _error(quantizer):
    """Return the error of the quantized model relative to the one in float, in roots of mean squares."""
    given = quantizer.model
    run, own = build(quantizer.observing(), None), len(given.signature.outputs)
    quantizer.use(calibrate(lambda a: run(a)[own:], data(given, _arrays()), quantizer.observers()))
    arrays = _arrays(4, seed=9)
    exact, got = _run(given.mod, arrays), _run(quantizer.rounded(quantizer.choose({})), arrays)
    return np.sqrt(((got - exact) ** 2).mean() / (exact**2).mean())


@pytest.mark.parametrize("alpha", ["auto", 0.5])
@pytest.mark.parametrize("net", [before, after, moved, activated])
def test_results_in_float_stay(net, alpha):
    given, made = _made(net, balance=alpha)
    assert made.model.mod is not given.mod
    arrays = _arrays(3, seed=5)
    np.testing.assert_allclose(_run(made.model.mod, arrays), _run(given.mod, arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("net", "gain"), [(before, 1.8), (after, 3), (moved, 1.8), (activated, 4)])
def test_quantized_it_loses_less(net, gain):
    given, made = _made(net)
    assert _error(Quantizer(given, Recipe())) > gain * _error(made)


def test_what_reads_the_norm_besides_scales_it_again_in_its_own_kernel():
    given, made = _made(after)
    assert operators(made.model.mod).count("multiply") == 1
    groups = [layer.group for layer in made.structure.layers]
    assert [len(group.side) for group in groups] == [1]
    assert groups[0].side[0].same_as(groups[0].inputs[0])
    assert operators(given.mod).count("multiply") == 0


def test_only_the_channels_far_out_are_repeated():
    _, made = _made(activated)
    weights = [layer.group.head.ty.shape.values[-1].value for layer in made.structure.layers]
    assert weights == [WIDE + 16, 8]
    parts = [each for each in _constants(made.model.mod) if each.shape == (WIDE + 16,)][-1]
    assert 10 < 1 / parts.min() < 18
    assert 1 / parts.min() == pytest.approx((parts == parts.min()).sum())
    assert (parts == 1).sum() >= WIDE - 4


def _returned(emit, x):
    y = _norm(emit, x)
    return [dense(emit, y, 16, 8), y]


def _reduced(emit, x):
    y = _norm(emit, x)
    return emit(R.add(dense(emit, y, 16, 8), emit(R.mean(y, axis=-1, keepdims=True))))


@pytest.mark.parametrize("net", [_returned, _reduced])
def test_what_others_need_as_it_is_stays(net):
    quantizer = Quantizer(model(net, x=SHAPE), Recipe())
    assert sites_of(quantizer) == []


@pytest.mark.parametrize(
    "recipe",
    [
        {"balance": "off"},
        {"scheme": scheme_named("int8-weight-only")},
        {"scheme": scheme_named("int8-dynamic")},
        {"scheme": scheme_named("bf16")},
    ],
)
def test_schemes_without_scales_from_data_have_nothing_to_balance(recipe):
    assert sites_of(Quantizer(model(before, x=SHAPE), Recipe(**recipe))) == []


def test_layers_that_stay_in_float_have_none():
    assert sites_of(Quantizer(model(after, x=SHAPE), Recipe(skip=()))) != []
    both = Recipe(skip=("matmul_0",))
    assert len(sites_of(Quantizer(model(before, x=SHAPE), both))) == 1


def _observed(array):
    channels = Channels(1)
    channels.update(array.astype("float32"))
    return channels


def test_the_expected_error_is_what_rounding_makes():
    """Against rounding itself, in float64."""
    generator = np.random.default_rng(3)
    x = generator.normal(0, np.geomspace(0.1, 10, 24), (4000, 24))
    w = generator.normal(0, 1, (24, 40))
    scheme = scheme_named("int8")
    for scale in (np.ones(24), np.geomspace(0.3, 3, 24)):
        low, high = (x / scale).min(), (x / scale).max()
        step = (high - low) / 255
        rounded = np.rint(x / scale / step) * step
        steps = np.abs(w * scale[:, None]).max(0) / 127
        weights = np.rint(w * scale[:, None] / steps) * steps
        error = ((rounded @ weights - x @ w) ** 2).mean(0).sum()
        assert expected_error(_observed(x), w, scale, scheme) == pytest.approx(error, rel=0.15)


def test_dead_channels_and_dead_weights_are_left_alone():
    x, w = np.random.default_rng(0).normal(0, 1, (50, 6)), np.random.default_rng(1).normal(0, 1, (6, 4))
    x[:, 0], w[1], x[:, 2] = 0, 0, x[:, 2] * 100

    def net(emit, given):
        weight = relax.const(w.astype("float32"))
        ones = relax.const(np.ones(6, "float32"))
        return emit(R.matmul(emit(R.nn.layer_norm(given, ones, ones, axes=[-1])), weight))

    quantizer = Quantizer(model(net, x=(50, 6)), Recipe())
    sites = sites_of(quantizer)
    made = balance(
        quantizer.model, quantizer.structure, sites, {sites[0].var: _observed(x)}, quantizer.scheme
    )
    constants = _constants(made.mod)
    gamma, _, weight = constants
    assert np.isfinite(weight).all()
    assert gamma[0] == gamma[1] == 1
    assert gamma[2] < 0.2 * gamma[3]
    assert (weight[1] == 0).all()
