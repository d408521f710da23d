import dataclasses

import numpy as np
import pytest

import compiler
from compiler.bundle import read, write
from compiler.bundle.arrays import to_npy
from compiler.deploy import relative_error, verify
from compiler.support.errors import BundleError
from tests import models


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "nested.kiln"
    compiler.compile(*models.nested(), output=path)
    return path


def parts(path):
    bundle = read(path)
    return bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.parts}


def test_a_whole_bundle_passes(path):
    reports = verify(path)
    assert [report.name for report in reports] == ["sum", "parts_0", "parts_1"]
    assert all(report.passed for report in reports)


def test_a_wrong_golden_output_is_found(path, tmp_path):
    manifest, contents = parts(path)
    name = manifest.golden.outputs[1]
    wrong = read(path).golden()[1][1]
    wrong[0, 0] += 0.1
    write(tmp_path / "wrong.kiln", manifest, {**contents, name: to_npy(wrong)})
    reports = verify(tmp_path / "wrong.kiln")
    assert [report.passed for report in reports] == [True, False, True]
    assert reports[1].error > 1e-2


def test_golden_inputs_that_do_not_fit(path, tmp_path):
    manifest, contents = parts(path)
    name = manifest.golden.inputs[0]
    write(tmp_path / "a.kiln", manifest, {**contents, name: to_npy(np.zeros((5, 5), np.float32))})
    with pytest.raises(BundleError, match=r"golden inputs .* do not fit"):
        verify(tmp_path / "a.kiln")


def test_no_golden_data(path, tmp_path):
    manifest, contents = parts(path)
    kept = {name: data for name, data in contents.items() if not name.startswith("golden/")}
    write(tmp_path / "none.kiln", dataclasses.replace(manifest, golden=None), kept)
    with pytest.raises(BundleError, match="no golden data"):
        verify(tmp_path / "none.kiln")


F = np.float32


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        (F([0, 1]), F([0, 1]), 0),
        (F([0, 1.5]), F([0, 1]), 0.5),
        (F([0, 5]), F([0, 10]), 0.5),
        (F([11]), F([10]), 0.1),
        (F([100.001, 101.001]), F([100, 100]), 0.01001),
        (F([0.5]), F([0]), 0.5),
        (F([np.nan, 1]), F([np.nan, 1]), 0),
        (F([np.nan, 1]), F([2, 1]), np.inf),
        (F([2, 1]), F([np.nan, 1]), np.inf),
        (F([np.inf, 1, 2]), F([np.inf, 1, 2]), 0),
        (F([-np.inf, 1]), F([np.inf, 1]), np.inf),
        (F([]), F([]), 0),
        (F([[1]]), F([1]), np.inf),
        (np.float64([1]), F([1]), np.inf),
        (np.array([1, 2]), np.array([1, 2]), 0),
        (np.array([1, 2]), np.array([1, 3]), np.inf),
        (np.array([True]), np.array([False]), np.inf),
        (np.uint8([0, 128]), np.uint8([1, 127]), 1 / 255),
        (np.int8([-128]), np.int8([127]), 1),
    ],
)
def test_relative_error(got, want, error):
    assert relative_error(got, want) == pytest.approx(error, rel=1e-3)
