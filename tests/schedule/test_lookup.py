"""Lookups in tables of 256 bytes against numpy's, and the instructions that each CPU does them with."""

import numpy as np
import pytest
import tvm
from tvm import te

from compiler.build.tile_functions import PIPELINE
from compiler.passes.kernels.lookup import instruction, lookup
from compiler.schedule.apply import schedule_kernel
from compiler.target import load
from tests.schedule.kernels import cpu, run, runnable


def _check(target, shape, given="uint8", made="uint8"):
    generator = np.random.default_rng()
    table = generator.integers(0, 256, 256).astype("uint8").view(made)
    codes = generator.integers(0, 256, shape).astype("uint8")
    codes.reshape(-1)[: min(codes.size, 256)] = np.arange(min(codes.size, 256))
    inputs = [te.placeholder(shape, given, "codes"), te.placeholder((256,), made, "table")]
    got, rule = run(inputs, lookup(*inputs), [codes.view(given), table], target)
    assert rule == "lookup"
    np.testing.assert_array_equal(got, table[codes])


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    "shape", [(256,), (1,), (63,), (3, 5, 257), (2, 8, 7, 7, 16), (70001,), (1 << 17,), ((1 << 17) + 3,)]
)
def test_any_size(target, shape):
    _check(cpu(target), shape)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(("given", "made"), [("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
def test_signed_bytes(target, given, made):
    _check(cpu(target), (4, 100), given, made)


INSTRUCTIONS = [
    ("znver4", "vpermi2b", "vperm"), ("x86-64-v4", "vpshufb", "vpshufb"), ("rpi4", "tbl", "tbx"),
    ("x86-64-v3", "plain", "movzbl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wanted", "mnemonic"), INSTRUCTIONS)
def test_each_target_gets_its_instruction(name, wanted, mnemonic):
    target = load(name)
    inputs = [te.placeholder((4, 256), "uint8", "codes"), te.placeholder((256,), "uint8", "table")]
    scheduled, _ = schedule_kernel(te.create_prim_func([*inputs, lookup(*inputs)]), target)
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    built = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)
    assert instruction(target) == wanted
    assert mnemonic in built.inspect_source("s")
