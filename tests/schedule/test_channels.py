import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx

from compiler.build.tile_functions import PIPELINE
from compiler.passes.kernels.channels import gather_channels
from compiler.passes.kernels.layout import pack_array
from compiler.passes.pipeline import fuse_passes
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.vector_math import register
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, random, runnable

R = relax.op


def _fused(shapes, picks, epilogue):
    """Return the one kernel that a gather and what `epilogue` makes of it and of a second tensor fuse to."""
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    shape = (shapes[0][0], -(-len(picks) // shapes[0][4]), *shapes[0][2:])
    other, builder = relax.Var("other", relax.TensorType(shape, "float32")), relax.BlockBuilder()
    with builder.function("main", [*inputs, other]):
        with builder.dataflow():
            kernel = builder.add_func(gather_channels(shapes, picks), "gather_channels")
            made = builder.emit(relax.call_tir(kernel, inputs, relax.TensorType(shape, "float32")))
            result = builder.emit_output(epilogue(builder.emit, made, other))
        builder.emit_func_output(result)
    mod = builder.finalize()
    with load("host").tvm_target():
        for _, step in fuse_passes(cpu=True):
            mod = step(mod)
    (function,) = [each for _, each in mod.functions_items() if isinstance(each, tirx.PrimFunc)]
    return function


def _run(function, arrays, shape, target, dtype="float32"):
    register()
    scheduled, rule = schedule_kernel(function, target)
    assert rule == "channels"
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    library = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)
    result = tvm.runtime.tensor(np.full(shape, 7, dtype))
    library["main"](*[tvm.runtime.tensor(array) for array in arrays], result)
    return result.numpy()


def _concatenation(*parts):
    return np.array([(number, channel) for number, part in enumerate(parts) for channel in range(part)])


def _shuffled(groups, *parts):
    picks = _concatenation(*parts)
    return picks.reshape(groups, -1, 2).transpose(1, 0, 2).reshape(-1, 2)


def _data(target, parts, picks, batch=1, size=(5, 7)):
    """Return blocked inputs, rubbish in the lanes past their last channel, and what is to become of them."""
    plain = [random(batch, part, *size) for part in parts]
    lanes = lanes_of(target)
    gathered = np.stack([plain[number][:, channel] for number, channel in picks], axis=1)
    return [pack_array(x, lanes, fill=np.nan) for x in plain], pack_array(gathered, lanes)


def _check(target, parts, picks, **options):
    arrays, expected = _data(target, parts, picks, **options)
    got = _run(gather_channels([a.shape for a in arrays], picks), arrays, expected.shape, target)
    np.testing.assert_array_equal(got, expected)  # zeros past the last channel, too


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("parts", "picks"),
    [
        ((24, 24), _concatenation(24, 24)),
        ((8, 8), _concatenation(8, 8)),
        ((3, 36, 5), _concatenation(3, 36, 5)),
        ((58, 58), _shuffled(2, 58, 58)),
        ((24, 18), _shuffled(3, 24, 18)),
        ((40,), _shuffled(4, 40)),
        ((40,), _concatenation(40)[3:20]),
        ((40,), _concatenation(40)[1::3]),
        ((48,), _concatenation(48)[16:32]),
        ((20, 4), _concatenation(20, 4)[::-1]),
        ((7,), _concatenation(7)[[2, 2, 2, 0]]),
    ],
)
def test_any_channels_from_anywhere(target, parts, picks):
    _check(cpu(target), parts, picks, batch=2)


@settings(max_examples=20, deadline=None)
@given(
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    size=st.tuples(st.integers(1, 33), st.integers(1, 33)),
    batch=st.integers(1, 3),
    data=st.data(),
)
def test_any_map(parts, size, batch, data):
    everything = _concatenation(*parts)
    chosen = data.draw(st.lists(st.integers(0, len(everything) - 1), min_size=1, max_size=60))
    picks = everything[chosen]
    used = np.unique(picks[:, 0])
    renumbered = np.stack([np.searchsorted(used, picks[:, 0]), picks[:, 1]], axis=1)
    _check(load("host"), [parts[number] for number in used], renumbered, batch=batch, size=size)


def test_more_blocks_than_get_code_of_their_own():
    parts = (700, 601)
    _check(load("host"), parts, _concatenation(*parts)[1:], size=(3, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 4099), (67, 61), (128, 128)])
def test_images_of_any_size_are_shared_out_to_the_threads(size):
    _check(load("host"), (12, 12), _concatenation(12, 12), size=size)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("size", [(5, 7), (64, 64)])
def test_what_follows_stays_in_registers(target, size):
    device, parts = cpu(target), (24, 20)
    picks = _concatenation(*parts)
    arrays, gathered = _data(device, parts, picks, size=size)
    other = random(*gathered.shape)
    function = _fused(
        [array.shape for array in arrays], picks, lambda emit, x, y: R.nn.relu(emit(R.add(x, R.sigmoid(y))))
    )
    got = _run(function, [*arrays, other], gathered.shape, device)
    expected = np.maximum(gathered + 1 / (1 + np.exp(-other.astype("float64"))), 0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_an_epilogue_of_another_type():
    target, picks = load("host"), _concatenation(5, 6)
    arrays, gathered = _data(target, (5, 6), picks)
    function = _fused(
        [a.shape for a in arrays], picks, lambda emit, x, y: R.astype(emit(R.multiply(x, y)), "float16")
    )
    other = random(*gathered.shape)
    got = _run(function, [*arrays, other], gathered.shape, target, "float16")
    np.testing.assert_array_equal(got, (gathered * other).astype("float16"))


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("size", [(3, 5), (64, 64)])
def test_bytes(target, dtype, size):
    device, picks = cpu(target), _shuffled(2, 11, 11)
    plain = [np.random.default_rng().integers(0, 127, (1, 11, *size)).astype(dtype) for _ in range(2)]
    gathered = np.stack([plain[number][:, channel] for number, channel in picks], axis=1)
    arrays = [pack_array(x, lanes_of(device), fill=99) for x in plain]
    expected = pack_array(gathered, lanes_of(device))
    function = gather_channels([array.shape for array in arrays], picks, dtype)
    np.testing.assert_array_equal(_run(function, arrays, expected.shape, device, dtype), expected)


def test_extents_that_are_known_only_when_it_runs():
    target, picks = load("host"), _shuffled(2, 6, 6)
    n, h, w = (tirx.Var(name, "int64") for name in "nhw")
    lanes = lanes_of(target)
    shapes = [(n, -(-6 // lanes), h, w, lanes)] * 2
    alone, fused = gather_channels(shapes, picks), _fused(shapes, picks, lambda emit, x, y: R.add(x, y))
    for batch, *size in ((1, 3, 4), (3, 40, 50)):
        arrays, expected = _data(target, (6, 6), picks, batch=batch, size=size)
        np.testing.assert_array_equal(_run(alone, arrays, expected.shape, target), expected)
        other = random(*expected.shape)
        got = _run(fused, [*arrays, other], expected.shape, target)
        np.testing.assert_array_equal(got, expected + other)
