"""The stage: data and a recipe in, a quantized model with its report out."""

import numpy as np
import pytest

from compiler.compress.agreement import compare_with_quantized
from compiler.compress.quantize import Goal, Material, quantize
from compiler.compress.quantizer import Quantizer
from compiler.compress.recipe import Recipe
from compiler.compress.report import Report
from compiler.support.errors import InputError
from tests.compress.nets import build, data, mixed, model, residual, samples
from tests.compress.test_quantizer import SHAPE


def _material(net, recipe=None, count=12):
    given = model(net, x=SHAPE)
    quantizer = Quantizer(given, recipe or Recipe())
    exact = build(quantizer.observing(), given.signature)
    return Material(quantizer, exact, data(given, samples(count, *SHAPE)), build)


def test_a_model_carries_what_its_library_is_checked_with():
    made = quantize(_material(mixed), Goal())
    report = Report.from_plain(made.quantized.report)
    assert report.quantized == len(report.layers) == 4
    assert report.batches == 12
    assert not report.is_random
    assert report.score is None
    assert [each.name for each in report.ranges] == ["x", "conv2d_0", "conv2d_2", "conv2d_1", "mean_0"]
    assert sum(report.ranges[0].bins) == 12 * np.prod(SHAPE)
    assert len(made.quantized.inputs) == len(made.quantized.exact) == len(made.quantized.rounded) == 8
    (found,) = compare_with_quantized(made.quantized, build(made.mod, made.signature), ["y"])
    assert found.error < found.tolerance / 10


def test_without_a_check_there_is_nothing_to_compare_with():
    made = quantize(_material(mixed), Goal(), check=False)
    assert made.quantized.inputs == ()


def test_sensitivity_is_measured_where_someone_asks():
    made = quantize(_material(residual), Goal(sensitivity=True), check=False)
    report = Report.from_plain(made.quantized.report)
    assert all(layer.output_sqnr > 20 for layer in report.layers)


def test_layers_stay_in_float_until_the_score_is_good():
    """A score that the second most sensitive layer alone could spoil."""
    needed = []

    def score(run):
        outputs = run([samples(1, *SHAPE)[0]])[0]
        needed.append(outputs)
        return -float(np.abs(outputs - needed[0]).max())

    material = _material(mixed)
    worst = -min(_drops(material, score))
    needed.clear()
    made = quantize(material, Goal(max_drop=worst / 2, evaluate=score, metric="nearness"), check=False)
    report = Report.from_plain(made.quantized.report)
    assert 0 < len(report.score.kept) < 4
    assert report.score.drop <= worst / 2
    kept = [layer for layer in report.layers if layer.reason]
    assert {layer.name for layer in kept} == set(report.score.kept)
    assert all("for a drop of at most" in layer.reason for layer in kept)
    assert min(report.layers, key=lambda layer: layer.output_sqnr) in kept


def _drops(material, score):
    """Return the score in float, and with all layers quantized."""
    made = quantize(material, Goal(), check=False)
    return [score(lambda a: material.exact(a)[:1]), score(build(made.mod, made.signature))]


def test_a_goal_that_cannot_be_met_tells_the_best():
    def score(run):
        score.calls += 1
        return 1.0 if score.calls == 1 else 0.25

    score.calls = 0
    with pytest.raises(
        InputError,
        match=r"no quantization to int8 loses at most 0\.1 of the good: in float it is 1, .*best .* 0\.25",
    ):
        quantize(_material(residual), Goal(max_drop=0.1, evaluate=score, metric="good"))


def test_constant_activations_are_told():
    material = _material(residual)
    blank = data(material.quantizer.model, [np.zeros(SHAPE, "float32")])
    made = quantize(Material(material.quantizer, material.exact, blank, build), Goal(), check=False)
    report = Report.from_plain(made.quantized.report)
    assert any("1 of 4 values that become bytes are constant" in text for text in report.warnings)
    assert report.ranges[0].notes == ("all values are zero; the scale 1 stands for the empty range",)
