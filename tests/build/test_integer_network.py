"""Networks of narrow numbers through the whole compiler, on every CPU level that this machine runs."""

import numpy as np
import pytest
from tvm.tirx import PrimFunc

from compiler.deploy import run_library
from compiler.target import load
from tests.build.networks import QUANTUM, dynamic_net, quantized_net, short_net
from tests.schedule.kernels import cpu, runnable


@pytest.mark.parametrize("name", runnable())
def test_it_computes_what_the_quantized_graph_says(tmp_path, name):
    target, case = cpu(name), quantized_net()
    built = case.build(target, tmp_path)
    (output,) = run_library(built.library, [case.input], 1)
    # Where a value lies between two bytes, either may be right.
    assert abs(output - case.output).max() <= 1.01 * QUANTUM
    assert (abs(output - case.output) > 0.5 * QUANTUM).mean() < 0.1
    assert len(np.unique(case.output)) > 10


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("network", [short_net, dynamic_net])
def test_layers_rounded_to_short_floats_or_at_run_time(tmp_path, name, network):
    target, case = cpu(name), network()
    (output,) = run_library(case.build(target, tmp_path).library, [case.input], 1)
    error = abs(output - case.output)
    # A value between two of bfloat16, or between two bytes, may be rounded to either.
    assert error.max() <= 0.02 * abs(case.output).max()
    assert np.sqrt((error**2).mean()) <= 0.004 * np.sqrt((case.output**2).mean())


def test_between_layers_of_short_floats_none_of_four_bytes_is_written():
    kernels = [f for f in short_net().scheduled(load("host")).functions.values() if isinstance(f, PrimFunc)]
    written = [str(kernel.params[-1].ty.dtype) for kernel in kernels]
    assert len(written) > 5
    assert written.count("float32") == 1, "only the network's output is of four bytes"


def test_between_its_layers_no_float_tensor_is_written():
    kernels = [
        f for f in quantized_net().scheduled(load("host")).functions.values() if isinstance(f, PrimFunc)
    ]
    written = [str(kernel.params[-1].ty.dtype) for kernel in kernels]
    assert len(written) > 5
    assert written.count("float32") == 1, "only the network's output is float"
