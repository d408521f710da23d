"""A small network for scikit-learn's handwritten digits: trained in seconds, then quantized.

    kiln compile examples/digits.py:model --quantize int8 --calibrate examples/digits.py:calibration \
        --evaluate examples/digits.py:accuracy --max-drop 0.3

It has what quantization has to get right: a residual sum, a depthwise convolution, pooling, a concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_TRAINING = 1297
"""How many of the 1797 images are trained with; the others test."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the images, Nx1x8x8 float32 from 0 to 1, in a random but fixed order, and what they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels[order]


def network() -> Any:
    """Return the network, untrained."""
    from torch import cat, nn, relu

    def layer(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> Any:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = layer(1, 24)
            self.inner, self.outer = layer(24, 24), layer(24, 24)
            self.pool = nn.MaxPool2d(2)
            self.depthwise, self.pointwise = layer(24, 24, groups=24), layer(24, 24, kernel=1)
            self.head = nn.Linear(48, 10)

        def forward(self, image: Any) -> Any:
            first = relu(self.stem(image))
            both = relu(self.outer(relu(self.inner(first))) + first)
            pooled = self.pool(both)
            deep = relu(self.pointwise(relu(self.depthwise(pooled))))
            return self.head(cat([deep, pooled], 1).mean((2, 3)))

    return Network()


def model() -> tuple[Any, tuple[Any, ...]]:
    """Return the network after a few epochs, in eval mode, and an example input, 1x1x8x8."""
    import torch

    torch.manual_seed(0)
    trained = network()
    _train(trained, epochs=8, rate=5e-3)
    return trained.eval(), (torch.from_numpy(digits()[0][:1]),)


def model_for_log2() -> tuple[Any, tuple[Any, ...]]:
    """Return the network trained for weights that are powers of two, and an example input."""
    return _trained_for(_power_of_two)


def model_for_binary() -> tuple[Any, tuple[Any, ...]]:
    """Return the network trained for weights of one bit, but in its first and last layer, and an input."""
    return _trained_for(_sign)


def _trained_for(rounded: Callable[[Any], Any]) -> tuple[Any, tuple[Any, ...]]:
    """Go on training with weights that are rounded as they are read, as if rounding were the identity.

    (The straight-through estimator: Bengio et al., "Estimating or Propagating Gradients Through Stochastic
    Neurons for Conditional Computation", 2013.) Batch norms have to be folded before: what
    they make of the weights is rounded. The ends stay in float where but a sign is left, as in XNOR-Net.
    """
    import torch
    from torch.nn.utils import parametrize
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    class Rounded(torch.nn.Module):
        def forward(self, weight: Any) -> Any:
            return weight + (rounded(weight) - weight).detach()

    trained, inputs = model()
    for name, child in list(trained.named_children()):
        if isinstance(child, torch.nn.Sequential):
            setattr(trained, name, fuse_conv_bn_eval(child[0], child[1]))
    ends = {"stem", "head"} if rounded is _sign else set()
    inside = [
        child for name, child in trained.named_children() if hasattr(child, "weight") and name not in ends
    ]
    for child in inside:
        parametrize.register_parametrization(child, "weight", Rounded())
    for rate in (2e-3, 5e-4):
        _train(trained, epochs=6, rate=rate)
    for child in inside:
        parametrize.remove_parametrizations(child, "weight")
    return trained.eval(), inputs


def _sign(weight: Any) -> Any:
    """Return the signs of weights, outputs first, times the mean magnitude of each output's."""
    scale = weight.abs().mean(tuple(range(1, weight.ndim)), keepdim=True)
    return (weight >= 0).to(weight.dtype).mul(2).sub(1) * scale


def _power_of_two(weight: Any) -> Any:
    """Return weights rounded to the compiler's own powers of two."""
    import torch

    from compiler.compress.scheme import scheme_named
    from compiler.compress.weights import quantize_weights

    codes = quantize_weights(weight.detach().numpy(), scheme_named("log2").weights, 0)
    return torch.from_numpy(codes.values)


def _train(trained: Any, epochs: int, rate: float) -> None:
    import torch

    images, labels = (torch.from_numpy(each[:_TRAINING]) for each in digits())
    trained.train()
    optimizer = torch.optim.Adam(trained.parameters(), rate)
    threads = torch.get_num_threads()
    # The images are so small that threads would mostly wait for each other.
    torch.set_num_threads(1)
    for _ in range(epochs):
        for batch in torch.randperm(_TRAINING).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(trained(images[batch]), labels[batch]).backward()
            optimizer.step()
    torch.set_num_threads(threads)


def calibration() -> Iterator[np.ndarray]:
    """Yield images that were trained with."""
    yield from digits()[0][:128]


def accuracy(run: Callable[[list[np.ndarray]], list[np.ndarray]]) -> float:
    """Return in how many of a hundred images that were not trained with `run` sees the right digit."""
    images, labels = (each[_TRAINING:] for each in digits())
    hits = [run([image[None]])[0].argmax() == label for image, label in zip(images, labels, strict=True)]
    return 100 * float(np.mean(hits))
