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
    summarize_storage,
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


def stored(name, operator, bits, stored, reason=""):
    return LayerReport(name, operator, "8x1x3x3", reason, bits=bits, stored=stored)


def test_what_takes_more_than_its_bits_is_told():
    layers = [stored("a", "conv2d", 4, 8), stored("b", "matmul", 3, 4), stored("c", "matmul", 8, 8)]
    layers += [stored(f"d{i}", "conv2d", 8, 32) for i in range(5)] + [stored("e", "matmul", 32, 32, "kept")]
    assert summarize_storage(tuple(layers)) == [
        "weights of 3 bits are stored in 4: codes have 1, 2, 4 or 8 bits",
        "weights of 4 bits are stored in 8: integer kernels multiply bytes",
        "rounded, but stored as float32: the weights of 5 conv2d (d0, d1, d2, d3, ...); "
        "no kernel of this target reads their codes",
    ]
    assert summarize_storage((stored("old", "conv2d", 8, None),)) == []


def test_weights_that_a_target_widens_are_found_by_operator_and_shape():
    layers = [stored("a", "matmul", 8, 8), stored("kept", "conv2d", 32, 32, "skipped")]
    layers += [stored(name, "conv2d", 8, 8) for name in "bc"]
    report = Report(**{**vars(REPORT), "layers": tuple(layers)}).with_widened([("conv2d", "8x1x3x3")])
    assert [(layer.name, layer.stored) for layer in report.layers] == [
        ("a", 8), ("kept", 32), ("b", 32), ("c", 8),
    ]  # fmt: skip
    assert len([line for line in report.lines() if line.startswith("rounded, but")]) == 1


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
