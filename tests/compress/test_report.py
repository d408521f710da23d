"""Reports as plain data and as sentences."""

import json
import math

from compiler.compress.report import (
    FloatReport,
    LayerReport,
    OutputReport,
    RangeReport,
    Report,
    ScoreReport,
    summarize_floats,
)

REPORT = Report(
    scheme="int8",
    description="weights int8, activations uint8",
    method="mse",
    data="'data.npz'",
    sha256="ab" * 32,
    batches=3,
    is_random=False,
    layers=(
        LayerReport("conv1", "conv2d", "8x3x3x3", "", 40.0, 35.5, 30.25),
        LayerReport("fc", "matmul", "8x4", "for a drop of at most 0.5"),
    ),
    ranges=(RangeReport("x", -1.0, 2.0, -1.1, 2.0, 0.01, 110, 2, (3, 4), ("a note",)),),
    floats=(FloatReport("softmax_0", "softmax", "it has no integer form"),),
    outputs=(OutputReport("y", 31.5, 0.9995, 0.975), OutputReport("z", None, 1.0, None)),
    score=ScoreReport("accuracy", 98.0, 97.75, 0.5, ("fc",)),
    warnings=("look here",),
)


def test_it_survives_json():
    assert Report.from_plain(json.loads(json.dumps(REPORT.to_plain(), allow_nan=False))) == REPORT


def test_what_json_cannot_hold_is_none():
    layer = LayerReport("a", "conv2d", "1x1", "", math.inf)
    assert Report(**{**vars(REPORT), "layers": (layer,)}).to_plain()["layers"][0]["weights_sqnr"] is None


def test_it_is_told_in_sentences():
    assert REPORT.quantized == 1
    assert REPORT.score.drop == 0.25
    assert REPORT.lines() == [
        "1 of 2 layers are int8 (weights int8, activations uint8)",
        "layer 'fc' stays in float: for a drop of at most 0.5",
        "in float: 1 softmax (it has no integer form)",
        "accuracy 98 in float, 97.75 quantized",
        "y: SQNR 31.5 dB, cosine 0.99950, same top-1 in 97.5%",
        "z: no error, cosine 1.00000",
        "look here",
    ]


def test_many_layers_in_float_are_counted():
    layers = tuple(LayerReport(f"l{i}", "conv2d", "1", "skipped") for i in range(12))
    lines = Report(**{**vars(REPORT), "layers": layers}).lines()
    assert "and 4 more layers stay in float" in lines


def test_operators_in_float_are_counted_by_reason():
    floats = [FloatReport(f"a{i}", "softmax", "because") for i in range(3)]
    floats += [FloatReport("b", "matmul", "because"), FloatReport("c", "add", "for another reason")]
    assert summarize_floats(tuple(floats)) == [
        "in float: 3 softmax, 1 matmul (because)",
        "in float: 1 add (for another reason)",
    ]
