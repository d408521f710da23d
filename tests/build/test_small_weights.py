"""A network with every kind of small weights through the whole compiler, on each CPU level that runs."""

import numpy as np
import pytest

from compiler.deploy import run_library
from compiler.target import load
from tests.build.networks import coded_net
from tests.schedule.kernels import cpu, runnable

RULES = {"coded_conv2d": 5, "coded_dense": 1, "xnor_conv2d": 1, "xnor_dense": 1}
"""How many kernels of each kind the network has."""


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
