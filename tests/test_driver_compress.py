"""Quantization from end to end: a small CNN against PyTorch, its bundle, its file, and what goes wrong."""

import numpy as np
import pytest
import torch
from torch import nn
from tvm import relax

import compiler
from compiler import driver, frontend
from compiler.bundle import read
from compiler.compress.recipe import Recipe
from compiler.compress.scheme import Float, Log2, Scheme, scheme_named
from compiler.driver import quantize
from compiler.driver_compress import make_request
from compiler.ir.rewriter import Rewriter, is_call
from compiler.support.errors import CheckError, InputError, ModelError, UsageError
from compiler.support.progress import watching
from tests import models
from tests.compress.nets import samples
from tests.test_driver import Heard, other_target

SHAPE = (1, 3, 16, 16)


class Net(nn.Module):
    """A residual sum, a depthwise convolution, max pooling, a concatenation, a gate and a mean."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU6())
        self.outer = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, stride=1, padding=1, groups=16), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.head = nn.Linear(32, 5)

    def forward(self, image):
        first = self.stem(image)
        pooled = nn.functional.max_pool2d(torch.relu(self.outer(self.inner(first)) + first), 2)
        deep = self.depthwise(pooled)
        return self.head(torch.cat([deep * self.gate(deep), pooled], 1).mean((2, 3)))


def net():
    torch.manual_seed(0)
    made = Net().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made, (torch.from_numpy(samples(1, *SHAPE)[0]),)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.kiln"
    heard = Heard()
    with watching(heard):
        made = compiler.compile(
            *net(), quantize="int8", calibrate=samples(16, *SHAPE), output=path, threads=1
        )
    return made, path, heard


def test_it_computes_nearly_what_pytorch_computes(compiled):
    """Each rounding to 256 codes is 40 to 45 dB below what it rounds; a dozen of them add up to 11 dB."""
    module, _ = net()
    arrays = samples(32, *SHAPE, seed=77)
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(array)).numpy() for array in arrays])
    got = np.concatenate([compiled[0](array) for array in arrays])
    noise = ((got - expected) ** 2).sum() / (expected**2).sum()
    assert -10 * np.log10(noise) > 30
    assert noise > 0
    assert (got.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_every_step_is_named(compiled):
    _, _, heard = compiled
    steps = [name for name in heard.stages if name not in ("optimize", "schedule", "build")]
    assert steps == [
        "import", "canonical", "observe", "calibrate", "reference", "check", "golden", "assess", "bundle",
    ]  # fmt: skip
    assert any("layers are int8" in text for text in heard.notes)


def test_the_bundle_tells_how_it_was_quantized(compiled):
    _, path, _ = compiled
    bundle = read(path)
    info = bundle.manifest.quantization
    assert (info.scheme, info.method, info.batches, info.is_random) == ("int8", "mse", 16, False)
    assert (info.layers, info.quantized) == (6, 6)
    assert len(info.sha256) == 64
    assert any("SQNR" in text for text in info.summary)
    assert "quantization.json" in bundle.manifest.parts
    assert bundle.manifest.check.error <= bundle.manifest.check.tolerance
    assert bundle.manifest.golden.source == "library"
    assert 1 / 256 < bundle.manifest.golden.tolerance < 0.1


def test_the_bundle_can_be_verified(compiled):
    from compiler.deploy import verify

    assert all(report.passed for report in verify(compiled[1], 1))


def test_a_quantized_model_is_saved_and_compiled_for_another_target(tmp_path):
    path = tmp_path / "net.kq"
    page = tmp_path / "net.html"
    model = quantize(*net(), calibrate=samples(8, *SHAPE), output=path, report=page)
    assert model.quantized.report["outputs"][0]["sqnr"] > 30
    assert "stem.0" in page.read_text(encoding="utf-8")
    here = compiler.compile(str(path), threads=1)
    assert here.manifest.check.ran == "library"
    assert here.manifest.quantization.quantized == 6
    assert here.manifest.model == "Net"
    there = compiler.compile(path, target=other_target())
    assert there.manifest.check.ran == "host build"
    assert there.manifest.quantization == here.manifest.quantization
    with pytest.raises(UsageError, match="quantized already"):
        compiler.compile(path, quantize="int8")


def test_layers_are_kept_in_float_by_their_names():
    recipe = Recipe(skip=("inner.*",), last="float")
    made = compiler.compile(*net(), quantize=recipe, calibrate=samples(4, *SHAPE), check=False)
    text = "\n".join(made.manifest.quantization.summary)
    assert made.manifest.quantization.quantized == 4
    assert "layer 'inner.0' stays in float: the recipe skips 'inner.*'" in text
    assert "layer 'head' stays in float: the recipe keeps the last layer in float" in text


def test_without_data_the_user_is_warned():
    heard = Heard()
    with watching(heard):
        made = compiler.compile(*net(), quantize="int8-tensor")
    assert any(text.startswith("warning: no calibration data") for text in heard.notes)
    assert made.manifest.quantization.is_random
    assert any("a guess" in text for text in made.manifest.quantization.summary)


def test_weights_that_are_stored_in_more_bits_are_told():
    compiled = compiler.compile(*net(), quantize="int4-g32", threads=1)
    lines = compiled.manifest.quantization.summary
    told = [line for line in lines if line.startswith("rounded, but stored as float32")]
    assert told == [
        "rounded, but stored as float32: the weights of 1 conv2d (depthwise.0); "
        "no kernel of this target reads their codes"
    ]
    # It needs no data: ranges are no guess.
    assert lines[-1] == "there is no data: outputs were compared on random inputs, which may say little"


def test_a_score_is_measured_on_the_library():
    def score(run):
        return float(run([np.zeros(SHAPE, "float32")])[0].shape[1])

    made = compiler.compile(*net(), quantize="int8", calibrate=samples(4, *SHAPE), evaluate=score)
    assert "score of score 5 in float, 5 quantized" in made.manifest.quantization.summary


def test_layers_stay_in_float_for_a_drop(tmp_path):
    """Weights of two bits turn the outputs by so much that some layers have to stay in float."""
    module, inputs = net()
    arrays = samples(8, *SHAPE)
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(array)).numpy() for array in arrays]).reshape(-1)

    def cosine(run):
        got = np.concatenate([run([array])[0] for array in arrays]).reshape(-1)
        return 100 * (got @ expected) / np.linalg.norm(got) / np.linalg.norm(expected)

    page = tmp_path / "page.html"
    made = compiler.compile(
        module, inputs, quantize="int2", calibrate=arrays, evaluate=cosine, max_drop=0.2, report=page
    )
    info = made.manifest.quantization
    assert 0 < info.quantized < 6
    assert any("for a drop of at most 0.2" in text for text in info.summary)
    # What was found with a simulation holds for the library.
    assert 99.7 < cosine(lambda given: [made(*given)]) < 99.99
    assert "(in float)" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"quantize": "int9"}, UsageError, "no scheme 'int9'"),
        ({"quantize": Recipe(Scheme("mine", Log2(), Float()))}, UsageError, "cannot be applied: no kernel"),
        ({"quantize": "none.yaml"}, UsageError, "cannot read the recipe"),
        ({"quantize": "int8", "max_drop": -1}, UsageError, "drop of at least 0"),
        ({"quantize": "int8", "max_drop": float("nan")}, UsageError, "drop of at least 0"),
        ({"quantize": "int8", "evaluate": 3}, UsageError, "expected a function or module:function"),
        ({"quantize": "int8", "evaluate": "nowhere:f"}, UsageError, "cannot find the Python module"),
        ({"quantize": "int8", "transform": "crop=3"}, UsageError, "needs calibration data"),
        ({"quantize": Recipe(rounding="adaptive")}, UsageError, "adaptive rounding needs data"),
        ({"quantize": "int8", "calibrate": [], "transform": "crpo=3"}, UsageError, "did you mean 'crop'"),
        ({"quantize": "int8", "report": "/no/such/folder/a.html"}, UsageError, "cannot write"),
        ({"quantize": "int8", "statistics": "none.npz"}, UsageError, "no statistics in 'none.npz' yet"),
        ({"quantize": "bf16", "statistics": "none.npz"}, UsageError, "takes nothing from data"),
        ({"statistics": "none.npz"}, UsageError, "statistics is for quantized models"),
        ({"calibrate": "data.npz"}, UsageError, "calibrate is for quantized models"),
        ({"max_drop": 1.0}, UsageError, "max-drop is for quantized models"),
        ({"report": "a.html"}, UsageError, "report about quantized models only"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(monkeypatch, arguments, kind, message):
    monkeypatch.setattr(frontend, "load", None)
    with pytest.raises(kind, match=message):
        compiler.compile(*models.tiny(), **arguments)


@pytest.mark.parametrize(
    ("calibrate", "kind", "message"),
    [
        ("none.npz", UsageError, "none.npz"),
        ("nothing", UsageError, "cannot find the calibration data"),
        ([], InputError, "expected calibration data, got none"),
        ([np.ones((3, 16, 17), "float32")], InputError, "expected shape 1x3x16x16"),
        ([np.ones(SHAPE, "int32")], InputError, "expected float32, got int32"),
        ([np.full(SHAPE, np.nan, "float32")], InputError, "finite"),
        ({"picture": np.ones(SHAPE, "float32")}, InputError, "no input 'picture'"),
    ],
)
def test_wrong_data_is_the_users_error(calibrate, kind, message):
    with pytest.raises(kind, match=message):
        compiler.compile(*models.tiny(), quantize="int8", calibrate=calibrate, check=False)


def test_a_model_without_layers_cannot_be_quantized():
    class Nothing(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    with pytest.raises(ModelError, match="nothing to quantize in Nothing"):
        compiler.compile(Nothing(), (torch.randn(2, 3),), quantize="int8")


class Spoil(Rewriter):
    """Makes the weights of convolutions one and a half times as large."""

    name = "Spoil"

    def rewrite(self, expr):
        if not is_call(expr, "relax.dequantize") or expr.args[0].ty.ndim != 4 or expr.args[1].value.ndim == 0:
            return expr
        scale = relax.const(expr.args[1].value.numpy() * np.float32(1.5))
        return relax.Call(expr.op, [expr.args[0], scale, expr.args[2]], expr.attrs)


def test_an_integer_kernel_that_is_wrong_is_found(monkeypatch):
    whole = driver.optimize
    built = []

    def broken(mod, target, **kwargs):
        built.append(mod)
        # The first two builds are those of the model in float.
        return whole(Spoil().run(mod) if len(built) > 2 else mod, target, **kwargs)

    monkeypatch.setattr(driver, "optimize", broken)
    with pytest.raises(CheckError, match="does not compute what the quantized model computes"):
        compiler.compile(*net(), quantize="int8", calibrate=samples(4, *SHAPE))


def test_a_request_names_its_score():
    request = make_request("int8", evaluate="numpy:mean")
    assert request.goal.metric == "score of 'numpy:mean'"
    assert make_request("int8").goal.metric == "agreement with float, %"


class Upsampling(nn.Module):
    """A transposed convolution, a signal, and an input that is no image: two inputs, two outputs."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 6, 2, stride=2)
        self.signal = nn.Conv1d(4, 8, 3, padding=1)
        self.mix = nn.Linear(8, 6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, image, wave):
        mixed = torch.relu(self.mix(torch.relu(self.signal(wave)).mean(2)))
        up = torch.relu(self.up(image)) * mixed[:, :, None, None]
        return {"image": self.last(nn.functional.interpolate(up, scale_factor=2)), "mixed": mixed}


class Words(nn.Module):
    """An embedding, attention and a residual stream with norms."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, ids):
        return self.head(self.block(self.table(ids))[:, 0])


def _outputs(module, arrays):
    with torch.no_grad():
        found = module(*map(torch.from_numpy, arrays))
    return found if isinstance(found, dict) else {"output_0": found}


@pytest.mark.parametrize("kind", ["upsampling", "words"])
def test_other_layers_and_inputs(kind):
    torch.manual_seed(0)
    random_numbers = np.random.default_rng(0)
    if kind == "words":
        module = Words().eval()
        data = [(random_numbers.integers(0, 50, (1, 7)),) for _ in range(8)]
    else:
        module = Upsampling().eval()
        data = [(samples(1, 1, 3, 6, 6, seed=i)[0], samples(1, 1, 4, 9, seed=i)[0]) for i in range(8)]
    made = compiler.compile(module, tuple(map(torch.from_numpy, data[0])), quantize="int8", calibrate=data)
    assert made.manifest.quantization.quantized == (4 if kind == "upsampling" else 5)
    expected = [_outputs(module, arrays) for arrays in data]
    for name in expected[0]:
        wanted = np.concatenate([each[name].numpy() for each in expected])
        got = np.concatenate(
            [made.session.run_flat(arrays)[list(expected[0]).index(name)] for arrays in data]
        )
        # As above: 30 dB is 3 % of the root mean square.
        assert np.sqrt(((got - wanted) ** 2).mean() / (wanted**2).mean()) < 0.03


def test_a_dimension_that_varies_stays_so():
    module, _ = net()
    made = compiler.compile(
        module,
        (torch.from_numpy(np.concatenate(samples(2, *SHAPE))),),
        dynamic={"image": {0: "N"}},
        quantize="int8",
        calibrate=np.concatenate(samples(12, *SHAPE)),
    )
    batch = np.concatenate(samples(3, *SHAPE))
    with torch.no_grad():
        expected = module(torch.from_numpy(batch)).numpy()
    assert np.sqrt(((made(batch) - expected) ** 2).mean() / (expected**2).mean()) < 0.03


def test_an_onnx_file_is_quantized(tmp_path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 14, 14))],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "a.onnx")
    made = compiler.compile(tmp_path / "a.onnx", quantize=Recipe(), calibrate=samples(4, *SHAPE))
    assert made.manifest.quantization.quantized == 1
    with pytest.raises(UsageError, match=r"no layer 'w' to skip .*layers: conv2d_0"):
        compiler.compile(tmp_path / "a.onnx", quantize=Recipe(skip=("w",)), calibrate=samples(4, *SHAPE))


def test_weights_are_rounded_adaptively():
    """With four bits for weights, outputs come nearer to those in float than by rounding each alone."""
    module, inputs = net()
    held_out = samples(8, *SHAPE, seed=77)
    exact = np.concatenate([_outputs(module, [array])["output_0"].numpy() for array in held_out])
    errors = {}
    for rounding in ("nearest", "adaptive"):
        recipe = Recipe(scheme=scheme_named("int4"), rounding=rounding)
        made = compiler.compile(
            module, inputs, quantize=recipe, calibrate=samples(16, *SHAPE), threads=1, check=False
        )
        got = np.concatenate([made.session.run_flat([array])[0] for array in held_out])
        errors[rounding] = np.square(got - exact).mean()
    assert errors["adaptive"] < 0.8 * errors["nearest"]
