"""Libraries of single kernels: they run by themselves, take turns, and ask for nothing but TVM's runtime."""

import numpy as np
import pytest
import tvm

from compiler.build.kernel_library import kernel_library
from compiler.schedule.apply import schedule_kernel
from compiler.target import load
from tests.build.test_cross import ELF, elf
from tests.conftest import needs
from tests.tune.faults import kernel


def library(name, folder):
    target = load(name)
    path = folder / "kernel.so"
    path.write_bytes(kernel_library(schedule_kernel(kernel(), target)[0], target))
    return path


def test_a_library_computes_and_takes_turns(tmp_path):
    module = tvm.runtime.load_module(str(library("host", tmp_path)))
    data = [np.random.standard_normal(shape).astype("float32") for shape in [(8, 16), *[(3, 16, 16)] * 3]]
    rows, *weights = map(tvm.runtime.tensor, data)
    outputs = [tvm.runtime.tensor(np.zeros((8, 45), "float32")) for _ in weights]
    flat = [each for weight, output in zip(weights, outputs, strict=True) for each in (rows, weight, output)]

    module["turns"](2, 3, *flat)
    expected = [
        data[0].astype(float) @ weight.transpose(1, 0, 2).reshape(16, 48)[:, :45] for weight in data[1:]
    ]
    for got, wanted in zip(outputs[:2], expected, strict=False):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert not outputs[2].numpy().any(), "its turn has not come yet"
    module["turns"](1, 3, *flat)
    np.testing.assert_allclose(outputs[2].numpy(), expected[2], rtol=1e-4, atol=1e-5)
    with pytest.raises(Exception, match="argument"):
        module["turns"](1, 1, rows)


@pytest.mark.parametrize("name", ["rpi4", "rpi2", "host"])
def test_a_library_is_for_the_board_and_needs_only_its_runtime(tmp_path, name):
    needs("nm", why="binutils")
    import subprocess

    path = library(name, tmp_path)
    assert elf(path).machine == ELF[load(name).arch]
    listed = subprocess.run(["nm", "-D", str(path)], capture_output=True, text=True, check=True).stdout
    needed = {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.split()[-2] == "U"}
    runtime = {word for word in needed if word.startswith(("TVM", "__TVM"))}
    assert runtime <= {"TVMFFIErrorSetRaisedFromCStrParts"}
    libc = {"memcpy", "memset", "expf", "logf", "powf", "__stack_chk_fail"}
    assert needed - runtime <= libc or name == "rpi2", needed
    assert not [word for word in needed if "kiln" in word.lower()]
