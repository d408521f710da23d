"""Compiled models as callables: one small library each, compiled once for the file."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import compiler
from compiler.deploy import load
from compiler.support.errors import BundleError, InputError, UsageError
from tests import models

PROBE = """
import sys
sys.modules["torch"] = None
import numpy as np, compiler
session = compiler.load(sys.argv[1])
output = session(np.zeros((1, 3, 16, 16), np.float32))
print(output.shape, bool(sys.modules["torch"]))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    module, inputs = models.tiny()
    path = tmp_path_factory.mktemp("tiny") / "tiny.kiln"
    return module, inputs[0], compiler.compile(module, inputs, output=path), path


@pytest.fixture(scope="module")
def nested():
    module, inputs = models.nested()
    return module, inputs, compiler.compile(module, inputs)


def test_torch_in_torch_out_numpy_in_numpy_out(tiny):
    module, image, compiled, _ = tiny
    with torch.no_grad():
        expected = module(image)
    got = compiled(image)
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, expected)
    array = compiled(image.numpy())
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_loaded_bundle_computes_the_same(tiny):
    _, image, compiled, path = tiny
    np.testing.assert_array_equal(load(path)(image.numpy()), compiled(image.numpy()))


def test_results_stay_after_the_next_call(tiny):
    _, image, compiled, _ = tiny
    first = compiled(image)
    kept = first.clone()
    compiled(image * 2)
    assert torch.equal(first, kept)


def test_nested_outputs_names_and_mixed_kinds(nested):
    module, inputs, compiled = nested
    expected = module(**inputs)
    got = compiled(right=inputs["right"], left=inputs["left"].numpy())
    assert set(got) == {"sum", "parts"}
    assert isinstance(got["parts"], tuple)
    torch.testing.assert_close(got["sum"], expected["sum"].detach())
    torch.testing.assert_close(got["parts"][1], expected["parts"][1].detach())


def test_arrays_however_they_lie_in_memory(tiny):
    _, image, compiled, _ = tiny
    expected = compiled(image.numpy())
    nhwc = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(compiled(nhwc), expected)
    room = np.empty(image.numel() + 1, np.float32)
    room[1:] = image.numpy().ravel()
    np.testing.assert_array_equal(compiled(room[1:].reshape(image.shape)), expected)
    gradient = image.clone().to(memory_format=torch.channels_last).requires_grad_()
    np.testing.assert_array_equal(compiled(gradient).numpy(), expected)


def test_wrong_inputs_are_named(tiny):
    _, image, compiled, _ = tiny
    for call, message in (
        (lambda: compiled(image[0]), "input 'image': expected shape 1x3x16x16, got 3x16x16"),
        (lambda: compiled(image.half()), "input 'image': expected float32, got float16"),
        (lambda: compiled(imgae=image), "no input 'imgae'; did you mean 'image'"),
        (lambda: compiled(), "input 'image' is missing"),
        (lambda: compiled(image, image), "expected 1 inputs"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_calls_from_several_threads(tiny):
    _, image, compiled, _ = tiny
    inputs = [(image * scale).numpy() for scale in range(4)]
    expected = [compiled(array) for array in inputs]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(20) if not np.array_equal(compiled(inputs[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_symbolic_batch():
    module, _ = models.tiny()
    compiled = compiler.compile(module, torch.randn(2, 3, 16, 16), dynamic={"image": {0: ("N", 1, 8)}})
    for batch in (1, 2, 7):
        image = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(compiled(image), module(image).detach())
    with pytest.raises(InputError, match=r"expected shape Nx3x16x16 \(N from 1 to 8\), got 9x3x16x16"):
        compiled(torch.randn(9, 3, 16, 16))


def test_a_bundle_for_another_cpu_is_refused(tiny, tmp_path):
    import dataclasses

    from compiler.bundle import read, write

    bundle = read(tiny[3])
    contents = {name: bundle.read(name) for name in bundle.manifest.parts}
    here = bundle.manifest.target
    arch, other = ("aarch64", "x86_64") if here.triple.startswith("x86") else ("x86_64", "aarch64")
    for target, message in (
        (
            dataclasses.replace(here, triple=f"{arch}-linux-gnu"),
            f"built for {arch} .*this machine is {other}",
        ),
        (dataclasses.replace(here, triple=here.triple.replace("linux", "windows")), "built for windows"),
        (dataclasses.replace(here, kind="metal"), "cannot be for metal"),
    ):
        write(tmp_path / "other.kiln", dataclasses.replace(bundle.manifest, target=target), contents)
        with pytest.raises(BundleError, match=message) as caught:
            load(tmp_path / "other.kiln")
        assert "\n" not in str(caught.value)


def test_a_missing_cpu_feature_is_named(tiny, monkeypatch):
    import dataclasses

    from compiler import target_detect

    here = target_detect.this_machine()
    needs = tiny[2].manifest.target.features
    if not needs:
        pytest.skip("this CPU has no optional features")
    poorer = dataclasses.replace(here, features=(here.features or frozenset()) - {needs[0]})
    monkeypatch.setattr(target_detect, "this_machine", lambda: poorer)
    with pytest.raises(BundleError, match=f"lacks: {needs[0]}"):
        load(tiny[3])


def test_a_library_that_is_none_is_one_line(tiny, tmp_path):
    from compiler.bundle import read, write

    bundle = read(tiny[3])
    contents = {name: bundle.read(name) for name in bundle.manifest.parts}
    write(tmp_path / "bad.kiln", bundle.manifest, {**contents, bundle.manifest.aot.library: b"no library"})
    with pytest.raises(BundleError, match=r"cannot run here: .* cannot be loaded as a library") as caught:
        load(tmp_path / "bad.kiln")
    assert "\n" not in str(caught.value)


def test_too_many_threads(tiny):
    with pytest.raises(UsageError, match="got 100000"):
        load(tiny[3], threads=100_000)


def test_nothing_stays_in_the_temporary_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = load(tiny[3])
    assert list(tmp_path.iterdir()) == []
    session(tiny[1].numpy())


def test_a_compiled_model_removes_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compiled = compiler.compile(*models.nested(), check=False)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    compiled.save(tmp_path / "saved.kiln")
    del compiled
    assert [each.name for each in tmp_path.iterdir()] == ["saved.kiln"]


def test_a_bundle_runs_where_torch_is_not_installed(tiny):
    run = subprocess.run([sys.executable, "-c", PROBE, str(tiny[3])], capture_output=True, text=True)
    assert run.stdout.strip() == "(1, 5) False", run.stderr
