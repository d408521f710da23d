import numpy as np
import pytest
import torch
from torch import nn
from tvm import relax

from compiler.frontend import load
from compiler.frontend.check import QUANTIZED_TOLERANCE, check, compare, locate
from compiler.support.errors import CheckError
from tests.frontend.helpers import execute


def one(expected, actual, **options):
    return compare([np.asarray(expected)], [np.asarray(actual)], ["y"], **options).outputs[0]


def floats(*values):
    return np.array(values, dtype="float32")


def test_the_error_is_a_part_of_the_outputs_range():
    output = one(floats(0, 10), floats(0, 10.0005))
    assert output.max_abs_error == pytest.approx(5e-4, rel=1e-2)
    assert output.relative_error == pytest.approx(5e-5, rel=1e-2)
    assert output.passed
    assert not one(floats(0, 10), floats(0, 10.002)).passed


def test_nearly_constant_outputs_are_measured_by_their_magnitude():
    assert one(floats(100), floats(100.001)).passed
    assert one(floats(100, 100.00001), floats(100, 100.001)).passed
    assert not one(floats(100), floats(100.1)).passed
    assert one(floats(0, 0), floats(0, 0)).passed
    assert not one(floats(0, 0), floats(0, 1)).passed


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_must_be_in_the_same_places(special):
    assert one(floats(special, 1, 2), floats(special, 1, 2)).passed
    assert not one(floats(special, 1, 2), floats(0, 1, 2)).passed
    assert not one(floats(0, 1, 2), floats(special, 1, 2)).passed
    assert not one(floats(special, 1), floats(1, special)).passed


def test_integers_and_bools_are_exact():
    assert one(np.array([1, 2]), np.array([1, 2])).passed
    assert not one(np.array([1, 2**60]), np.array([1, 2**60 + 1])).passed
    assert not one(np.array([True, False]), np.array([True, True])).passed
    assert not one(np.array([1], "int32"), np.array([2], "int32")).passed


def test_bytes_may_be_a_level_off_where_values_are_rounded():
    got, want = np.array([[0, 127]], "uint8"), np.array([[255, 128]], "uint8")
    assert not one(got[:, 1:], want[:, 1:]).passed
    (report,) = compare([want], [got], ["y"], tolerance=QUANTIZED_TOLERANCE).outputs
    assert not report.passed
    assert report.relative_error == 1
    assert compare([want[:, 1:]], [got[:, 1:]], ["y"], tolerance=QUANTIZED_TOLERANCE).passed
    wide = [each[:, 1:].astype("int32") for each in (want, got)]
    assert not compare(wide[:1], wide[1:], ["y"], tolerance=QUANTIZED_TOLERANCE).passed


def test_another_shape_or_dtype_never_passes():
    assert "expected 2 float32, got 1x2 float32" in str(one(floats(1, 2), floats(1, 2)[None]))
    assert "got 2 float64" in str(one(floats(1, 2), np.array([1.0, 2.0])))
    assert not one(np.array([1], "int64"), np.array([1], "int32")).passed
    assert not compare([floats(1)], [], ["y"]).passed


def test_empty_outputs_and_outputs_without_finite_values():
    assert one(np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32")).passed
    report = compare([floats(np.nan)], [floats(np.nan)], ["y"])
    assert report.notes == ("y has no finite value to compare",)


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.third = nn.Linear(4, 2)

    def forward(self, x):
        return self.third(self.second(self.first(x)))


def wrong_tanh(node, importer):
    x = importer.env[node.args[0]]
    return importer.block_builder.emit(relax.op.multiply(relax.op.tanh(x), relax.const(1.01, "float32")))


def test_an_error_names_the_first_layer_that_differs():
    model = load(Tower(), torch.randn(3, 4), converters={"tanh.default": wrong_tanh})
    with pytest.raises(CheckError) as caught:
        check(model, lambda inputs: execute(model.mod, inputs), execute=execute)
    text = str(caught.value)
    assert "aten.tanh.default in second.1 (Tanh) at" in text
    assert "test_check.py:" in text
    assert "of its range" in text


def test_locate_finds_nothing_in_a_right_import():
    model = load(Tower(), torch.randn(3, 4))
    assert locate(model, execute, model.examples) is None


def test_an_error_after_the_import_is_told_from_one_in_it():
    model = load(Tower(), torch.randn(3, 4))
    with pytest.raises(CheckError, match="a later pass or the code generation is wrong"):
        check(model, lambda inputs: [array + 1 for array in model.reference(inputs)], execute=execute)


def test_a_model_that_is_random_is_told_from_a_wrong_import():
    class Shifting(nn.Module):
        calls = 0

        def forward(self, x):
            Shifting.calls += 1
            return x * Shifting.calls

    model = load(Shifting(), torch.randn(3, 4))
    with pytest.raises(CheckError, match=r"torch\.export's own graph differs from the module"):
        check(model, lambda inputs: execute(model.mod, inputs), execute=execute)


def test_the_example_inputs_are_checked_too():
    model = load(Tower(), torch.randn(3, 4))
    seen = []

    def run(inputs):
        seen.append(inputs[0])
        return model.reference(inputs)

    check(model, run)
    assert len(seen) == 2
    assert np.array_equal(seen[1], model.examples[0])
    assert not np.array_equal(seen[0], seen[1])


def test_fresh_inputs_that_the_model_refuses_are_noted():
    class Picky(nn.Module):
        def forward(self, x):
            if not torch.compiler.is_exporting():
                assert x[0] == 0.5, "picky"
            return x * 2

    model = load(Picky(), torch.tensor([0.5, -2.0]))
    report = check(model, model.reference)
    assert report.outputs
    assert any("picky" in note for note in report.notes)
