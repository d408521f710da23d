import numpy as np
import pytest
import torch

import compiler
from compiler import driver, frontend
from compiler.bundle import read
from compiler.support.errors import CheckError, ModelError, TargetError, UsageError
from compiler.support.progress import watching
from tests import models


class Heard:
    """A watcher that remembers."""

    def __init__(self):
        self.stages, self.notes = [], []

    def begin(self, name):
        pass

    def note(self, text):
        self.notes.append(text)

    def end(self, name, seconds, failed):
        self.stages.append(name)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A place for temporary files that a test can look into."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def other_target():
    """A shipped CPU target that is not this machine."""
    from compiler.target import compatible, load

    return next(name for name in ("rpi4", "x86-64-v2") if compatible(load(name)) is not None)


def test_every_step_is_named_and_recorded(tmp_path):
    heard = Heard()
    with watching(heard):
        compiled = compiler.compile(*models.tiny(), output=tmp_path / "a.kiln", threads=1)
    assert heard.stages == ["import", "optimize", "schedule", "build", "check", "golden", "bundle"]
    manifest = read(tmp_path / "a.kiln").manifest
    assert manifest.model == "TinyConv"
    assert manifest.threads == 1
    assert manifest.check.ran == "library"
    assert manifest.check.error < 1e-5
    assert manifest.golden.source == "reference"
    assert manifest.passes
    assert "conv2d" in {kernel.rule for kernel in manifest.kernels.values()}
    assert manifest.torch == torch.__version__.split("+")[0]
    assert manifest.signature == compiled.signature


def test_the_golden_output_is_pytorchs(tmp_path):
    module, inputs = models.tiny()
    compiler.compile(module, inputs, output=tmp_path / "a.kiln")
    (image,), (expected,) = read(tmp_path / "a.kiln").golden()
    np.testing.assert_array_equal(image, inputs[0].numpy())
    np.testing.assert_allclose(expected, module(inputs[0]).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_equal_models_give_equal_libraries(tmp_path):
    compiler.compile(*models.tiny(), output=tmp_path / "a.kiln")
    compiler.compile(*models.tiny(), output=tmp_path / "b.kiln")
    first, second = read(tmp_path / "a.kiln"), read(tmp_path / "b.kiln")
    assert first.manifest.signature == second.manifest.signature
    assert first.manifest.kernels == second.manifest.kernels


def test_another_machines_library_is_checked_by_a_host_build(temporary):
    module, inputs = models.nested()
    compiled = compiler.compile(module, inputs, target=other_target())
    assert compiled.manifest.check.ran == "host build"
    assert any("not run" in text for text in compiled.manifest.notes)
    assert compiled.manifest.golden.source == "reference"
    with pytest.raises(UsageError, match=r"does not run here: .*save"):
        compiled(**inputs)


def test_the_check_can_be_skipped():
    compiled = compiler.compile(*models.tiny(), check=False)
    assert compiled.manifest.check is None
    assert any("--no-check" in text for text in compiled.manifest.notes)


def test_a_wrong_library_is_refused_and_the_layer_named(monkeypatch, temporary, tmp_path):
    """A pass that breaks the convolution must not get past the check."""
    from tvm import relax

    whole = driver.optimize

    def broken(mod, target, **kwargs):
        @relax.expr_functor.mutator
        class Negate(relax.PyExprMutator):
            def visit_call_(self, call):
                call = super().visit_call_(call)
                if getattr(call.op, "name", "") == "relax.nn.conv2d":
                    return relax.op.negative(self.builder_.emit(call))
                return call

        mutator = Negate(mod)
        mod["main"] = mutator.visit_expr(mod["main"])
        return whole(mod, target, **kwargs)

    monkeypatch.setattr(driver, "optimize", broken)
    with pytest.raises(CheckError, match=r"first layer that differs: .*conv") as caught:
        compiler.compile(*models.tiny(), output=tmp_path / "a.kiln")
    assert "features" in str(caught.value)
    assert not (tmp_path / "a.kiln").exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"target": "rpi44"}, TargetError, "did you mean 'rpi4'"),
        ({"threads": 0}, UsageError, "at least 1 thread"),
        ({"threads": 100_000}, UsageError, "got 100000"),
        ({"output": "/no/such/folder/a.kiln"}, UsageError, "cannot write"),
        ({"dump_ir": "/dev/null/ir"}, UsageError, "cannot make the folder"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(temporary, monkeypatch, arguments, kind, message):
    monkeypatch.setattr(frontend, "load", None)
    with pytest.raises(kind, match=message):
        compiler.compile(*models.tiny(), **arguments)
    assert list(temporary.iterdir()) == []


def test_a_model_that_cannot_be_imported_leaves_nothing(temporary, tmp_path):
    with pytest.raises(ModelError):
        compiler.compile(*models.unsupported(), output=tmp_path / "a.kiln")
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "a.kiln").exists()


def test_an_interrupted_compilation_leaves_nothing(temporary, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "build_ahead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiler.compile(*models.tiny(), output=tmp_path / "a.kiln")
    assert list(temporary.iterdir()) == []
    assert [each.name for each in tmp_path.iterdir()] == ["temporary"]


def test_a_full_disk_is_found_before_code_generation(temporary, monkeypatch):
    """LLVM would end the process, without a word of Kiln's."""
    import shutil

    usage = shutil.disk_usage(temporary)
    module, inputs = models.tiny()
    weights = sum(parameter.numel() * 4 for parameter in module.parameters())
    assert driver.constant_bytes(driver.frontend.load(module, inputs).mod) >= weights
    before = set(temporary.iterdir())  # torch's own
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    monkeypatch.setattr(driver, "build", None)
    with pytest.raises(UsageError, match=r"MB of free disk for temporary files .* got 1 MB: .*TMPDIR"):
        compiler.compile(module, inputs)
    assert set(temporary.iterdir()) == before


def test_ir_is_dumped_and_numbered(tmp_path):
    compiler.compile(*models.tiny(), check=False, dump_ir=tmp_path / "new" / "ir")
    names = sorted(each.name for each in (tmp_path / "new" / "ir").glob("*.py"))
    assert len(names) > 3
    assert all(name[:2].isdigit() for name in names)
