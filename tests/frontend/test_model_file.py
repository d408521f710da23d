"""A quantized model survives its file."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
import tvm

from compiler.frontend import load
from compiler.frontend.model import Model, Quantized
from compiler.frontend.model_file import read_model, write_model
from compiler.support.errors import ModelError, UsageError
from compiler.support.signature import Signature, TensorSpec
from tests.passes.graphs import const, graph, random, run


def _model():
    from tvm import relax

    def build(emit, x):
        stored = relax.const(np.arange(-8, 8, dtype="int8").reshape(4, 4, 1, 1))
        scale, zero = relax.const(np.full(4, 0.1, "float32")), relax.const(np.zeros(4, "int8"))
        weight = emit(relax.op.dequantize(stored, scale, zero, axis=0))
        return relax.op.add(emit(relax.op.nn.conv2d(x, weight)), const(1, 4, 1, 1))

    half = np.arange(3).astype(ml_dtypes.bfloat16)
    signature = Signature(
        (TensorSpec("x", (1, 4, "N", 6), "float32"), TensorSpec("h", (3,), "bfloat16")),
        (TensorSpec("y", (1, 4, "N", 6), "float32"),),
        dims={"N": (1, None)},
    )
    x = random(1, 4, 6, 6)
    return Model(
        graph(build, x=(1, 4, 6, 6)),
        signature,
        "somewhere:net",
        examples=(x, half),
        notes=("a note",),
        ranges={"x": (0.0, 1.0)},
        sizes={"N": 6},
        quantized=Quantized(
            {"scheme": "int8", "layers": []}, ((x, half),) * 2, ((x + 1,),) * 2, ((x + 2,),) * 2
        ),
    )


def test_all_of_it_comes_back(tmp_path):
    model, path = _model(), tmp_path / "a.kq"
    write_model(model, path)
    back = load(path)
    tvm.ir.assert_structural_equal(back.mod, model.mod)
    x = model.examples[0]
    np.testing.assert_array_equal(run(back.mod, x), run(model.mod, x))
    for field in ("signature", "origin", "notes", "ranges", "sizes", "reference", "program"):
        assert getattr(back, field) == getattr(model, field), field
    assert back.quantized.report == model.quantized.report
    for group in ("inputs", "exact", "rounded"):
        pairs = zip(getattr(back.quantized, group), getattr(model.quantized, group), strict=True)
        for got, wanted in pairs:
            for one, other in zip(got, wanted, strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(back.examples[1], model.examples[1])


def test_equal_models_give_equal_files(tmp_path):
    for name in ("a.kq", "b.kq"):
        write_model(_model(), tmp_path / name)
    assert (tmp_path / "a.kq").read_bytes() == (tmp_path / "b.kq").read_bytes()


def _rewritten(path, **changes):
    """Write the parts of a file again, some of them changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts |= {name.replace("_json", ".json"): data for name, data in changes.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            if data is not None:
                archive.writestr(name, data)


def _about(path, **changes):
    with zipfile.ZipFile(path) as archive:
        return json.dumps({**json.loads(archive.read("about.json")), **changes}).encode()


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.kq"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="expected a quantized model"):
        read_model(path)
    for changes in ({"about_json": b"{"}, {"about_json": b"[]"}, {"model_json": b"{}"}, {"model_json": None}):
        write_model(_model(), path)
        _rewritten(path, **changes)
        with pytest.raises(ModelError, match="expected a quantized model"):
            read_model(path)
    write_model(_model(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="expected a quantized model"):
        read_model(path)
    with pytest.raises(UsageError, match="cannot find the model file"):
        load(str(tmp_path / "none.kq"))


def test_files_of_other_versions_are_refused(tmp_path):
    path = tmp_path / "a.kq"
    write_model(_model(), path)
    _rewritten(path, about_json=_about(path, format=2))
    with pytest.raises(ModelError, match="has format 2, and this Kiln reads 1: quantize the model again"):
        read_model(path)
    write_model(_model(), path)
    _rewritten(path, about_json=_about(path, tvm="0.99"), model_json=b"{}")
    with pytest.raises(ModelError, match=r"written with TVM 0\.99"):
        read_model(path)


def test_it_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.kq"
    write_model(_model(), path)
    with pytest.raises(UsageError, match="read as it is"):
        load(path, inputs=["x=1x4x6x6"])
