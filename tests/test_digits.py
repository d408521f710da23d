"""A trained network keeps its accuracy in few bits: 0.3 points may go for int8, 1 for int4."""

import pytest

import compiler
from tests.conftest import needs


@pytest.fixture(scope="module")
def trained():
    needs("sklearn", why="make setup")
    from examples import digits

    return digits.model()


@pytest.mark.parametrize(("scheme", "allowed"), [("int8", 0.3), ("int4", 1.0)])
def test_accuracy_on_images_that_were_not_trained_with(trained, scheme, allowed):
    from examples import digits

    module, inputs = trained
    in_float = digits.accuracy(lambda arrays: [module(_tensor(arrays[0])).detach().numpy()])
    assert in_float > 98
    made = compiler.compile(module, inputs, quantize=scheme, calibrate=digits.calibration, threads=1)
    assert made.manifest.quantization.quantized == made.manifest.quantization.layers == 6
    assert digits.accuracy(made.session.run_flat) >= in_float - allowed


def _tensor(array):
    import torch

    return torch.from_numpy(array)
