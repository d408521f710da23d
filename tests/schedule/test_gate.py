import numpy as np
import pytest
from tvm import te, tirx

from compiler.passes.kernels import conv2d as kernel
from compiler.passes.kernels.layout import pack_array
from tests.schedule.kernels import cpu, lanes_of, placeholder, random, run, runnable

POINT = kernel.Conv2dShape((1, 1), (0, 0, 0, 0), (1, 1), 1)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("batch", "squeezed", "channels", "height", "width"),
    [(1, 8, 48, 7, 7), (2, 20, 40, 5, 9), (1, 3, 17, 1, 6)],
)
def test_a_gate_multiplies_its_image(target, batch, squeezed, channels, height, width):
    device = cpu(target)
    lanes = lanes_of(device)
    mean, image = random(batch, squeezed, 1, 1), random(batch, channels, height, width)
    weight, bias = random(channels, squeezed, 1, 1), random(1, channels, 1, 1)
    arrays = [
        pack_array(mean, lanes),
        kernel.pack_weights(weight, lanes, lanes),
        pack_array(bias, lanes),
        pack_array(image, lanes),
    ]
    x, w, b, y = (placeholder(f"x{i}", *array.shape) for i, array in enumerate(arrays))
    conv = kernel.conv2d(x, w, POINT)
    added = te.compute(conv.shape, lambda n, c, h, w, v: conv[n, c, h, w, v] + b[0, c, 0, 0, v], name="add")
    gate = te.compute(conv.shape, lambda *i: tirx.sigmoid(added[i]), name="sigmoid")
    out = te.compute(y.shape, lambda n, c, h, w, v: gate[n, c, 0, 0, v] * y[n, c, h, w, v], name="multiply")
    got, rule = run([x, w, b, y], out, arrays, device)
    assert rule == "conv2d"
    sums = np.einsum("nihw,oi->no", mean.astype("float64"), weight[:, :, 0, 0]) + bias[:, :, 0, 0]
    expected = image / (1 + np.exp(-sums))[:, :, None, None]
    unpacked = got.transpose(0, 1, 4, 2, 3).reshape(batch, -1, height, width)[:, :channels]
    np.testing.assert_allclose(unpacked, expected, rtol=2e-6, atol=2e-6)
