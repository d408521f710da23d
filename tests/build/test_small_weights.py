"""A network with every kind of small weights through the whole compiler, on each CPU level that runs."""

import re

import numpy as np
import pytest
import tvm

from compiler.deploy import run_library
from compiler.target import load
from tests.build.assembly import functions, listing
from tests.build.networks import coded_net, half_net
from tests.schedule.kernels import cpu, runnable

RULES = {"coded_conv2d": 5, "coded_dense": 1, "xnor_conv2d": 1, "xnor_dense": 1}
"""How many kernels of each kind the network has."""

_CALL = re.compile(r"\b(callq?|bl)\s+__(extendhf|truncsf)")
"""A call of the runtime that converts one float16."""


@pytest.mark.parametrize("name", runnable())
def test_it_computes_what_the_quantized_graph_says(tmp_path, name):
    target, case = cpu(name), coded_net()
    built = case.build(target, tmp_path)
    (output,) = run_library(built.library, [case.input], 1)
    # A sign is decided by rounding only for values next to zero; of these there are none.
    np.testing.assert_allclose(output, case.output, rtol=1e-4, atol=1e-5)


def test_every_layer_has_a_kernel_of_its_kind():
    names = [variable.name_hint for variable in coded_net().scheduled(load("host")).get_global_vars()]
    assert {kind: sum(kind in name for name in names) for kind in RULES} == RULES
    assert not any("fused_conv2d" in name for name in names)


@pytest.mark.parametrize("name", runnable())
def test_layers_of_halves_compute_what_the_graph_says(tmp_path, name):
    target, case = cpu(name), half_net()
    (output,) = run_library(case.build(target, tmp_path).library, [case.input], 1)
    error = abs(output - case.output)
    # A value between two of float16 may be rounded to either: a relative difference of 2^-11.
    assert error.max() <= 0.002 * abs(case.output).max()
    assert np.sqrt((error**2).mean()) <= 0.0005 * np.sqrt((case.output**2).mean())


@pytest.mark.parametrize(
    ("name", "widens", "rounds"),
    [
        ("x86-64-v3", "vcvtph2ps", "vcvtps2ph"),
        ("x86-64-v4", "vcvtph2ps", "vcvtps2ph"),
        ("rpi4", "fcvtl", "fcvtn"),
    ],
)
def test_halves_are_converted_by_instructions(name, widens, rounds):
    """The runtime's functions, one call a number, would take longer than the products."""
    target = load(name)
    kernels = {
        variable: function.with_attr("global_symbol", variable.name_hint)
        for variable, function in half_net().scheduled(target).functions.items()
        if isinstance(function, tvm.tirx.PrimFunc) and "conv2d" in variable.name_hint
    }
    found = functions(listing(tvm.IRModule(kernels), target))
    lines = [line for function, body in found.items() if not function.startswith("__") for line in body]
    assert any(widens in line for line in lines)
    assert any(rounds in line for line in lines)
    assert not [line for line in lines if _CALL.search(line)]
