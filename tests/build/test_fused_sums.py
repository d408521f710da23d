"""A product and a sum in one rounding, with an instruction or without."""

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from compiler.build.fused_sums import fused_sums, has_fma
from compiler.build.jit import jit
from compiler.target import load, why_not_here
from compiler.target_tvm import tvm_target


def epilogue(dtype):
    """Return a kernel from sums, and `dtype`, to float32."""
    sums, given = te.placeholder((1024,), "int32", name="sums"), te.placeholder((1024,), dtype, name="given")
    offset = te.placeholder((1024,), "float32", name="offset")

    def value(i):
        return (
            sums[i].astype("float32") * tirx.const(0.0123, "float32") + offset[i] + given[i].astype("float32")
        )

    made = te.compute((1024,), value, name="made")
    return te.create_prim_func([sums, given, offset, made])


def rewritten(dtype, name):
    function = epilogue(dtype).with_attr("target", tvm_target(load(name)))
    return str(fused_sums(tvm.IRModule({"main": function}))["main"])


def test_only_kernels_of_bytes_are_rewritten():
    assert "llvm.fma" in rewritten("uint8", "znver4")
    assert "float64" in rewritten("int8", "x86-64-v2")
    for name in ("znver4", "x86-64-v2"):
        assert not {"llvm.fma", "float64"} & set(rewritten("float32", name).split('"'))


@pytest.mark.parametrize(
    ("name", "has"),
    [("rpi2", True), ("rpi4", True), ("riscv64", True), ("x86-64-v2", False), ("x86-64-v3", True)],
)
def test_which_have_an_instruction(name, has):
    assert has_fma(tvm_target(load(name))) == has


@pytest.mark.parametrize("name", ["host", "x86-64-v2", "x86-64-v3"])
def test_the_sum_is_rounded_once(name):
    target = load(name)
    if why := why_not_here(target.triple, target.features):
        pytest.skip(why)
    generator = np.random.default_rng()
    sums = generator.integers(-(1 << 23), 1 << 23, 1024).astype("int32")
    offset = generator.standard_normal(1024).astype("float32") * 100
    given = generator.integers(0, 256, 1024).astype("uint8")
    out = tvm.runtime.tensor(np.zeros(1024, "float32"))
    (run,) = jit([epilogue("uint8")], target)
    run(*map(tvm.runtime.tensor, (sums, given, offset)), out)
    # float64 holds the product exactly; its own rounding of the sum is 29 bits finer.
    exact = (sums * np.float64(np.float32(0.0123)) + offset).astype("float32")
    np.testing.assert_array_equal(out.numpy(), exact + given.astype("float32"))
