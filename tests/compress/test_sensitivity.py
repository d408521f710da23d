"""What each layer loses alone."""

import numpy as np
from tvm import relax

from compiler.compress.sensitivity import measure, measured_values
from tests.compress.nets import build, conv, relu
from tests.compress.test_quantizer import calibrated


def test_a_layer_with_few_bits_worth_of_range_is_the_most_sensitive():
    """One weight that is far larger than the others takes all codes of its channel."""

    def net(emit, x):
        first = relu(emit, conv(emit, x, 3, 8))
        weight = np.random.default_rng(0).normal(0, 0.1, (8, 8, 3, 3)).astype("float32")
        weight[:, 0, 0, 0] = 30
        spoiled = emit(relax.op.nn.conv2d(first, relax.const(weight), padding=1))
        return conv(emit, relu(emit, spoiled), 8, 4, kernel=1)

    quantizer, arrays, _ = calibrated(net)
    simulation = quantizer.simulation(measured_values(quantizer))
    run = build(simulation.mod, simulation.signature)
    lost = measure(quantizer, simulation, run, [[array] for array in arrays])
    assert list(lost) == ["conv2d_0", "conv2d_1", "conv2d_2"]
    assert all(15 < each.own < 80 for each in lost.values())
    assert all(15 < each.output < 80 for each in lost.values())
    assert min(lost, key=lambda name: lost[name].output) != "conv2d_2"
