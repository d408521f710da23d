"""The example inputs that a family of models declares, so that ``torchvision.models:resnet18`` needs none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from compiler.frontend.input_text import random_tensor

Examples = tuple[tuple[Any, ...], dict[str, Any]]


def declared_examples(module: Any, factory: str = "") -> Examples | None:
    """Return positional and keyword example inputs for `module`, or None where nothing is declared.

    `factory` is the name of the function that made it (``resnet18``); torchvision declares input sizes
    per function, not per class.
    """
    for family in _FAMILIES:
        examples = family(module, factory)
        if examples is not None:
            return examples
    return None


def _torchvision(module: Any, factory: str) -> Examples | None:
    home = type(module).__module__
    if not home.startswith("torchvision.models") or ".detection" in home:
        return None
    size, frames = _torchvision_size(factory)
    if ".optical_flow" in home:
        return tuple(random_tensor((1, 3, 128, 128), "float32", None, seed) for seed in (0, 1)), {}
    if ".video" in home:
        return (random_tensor((1, 3, frames, size, size), "float32", None, 0),), {}
    return (random_tensor((1, 3, size, size), "float32", None, 0),), {}


def _torchvision_size(factory: str) -> tuple[int, int]:
    """Return the image side and the number of frames that the weights of `factory` were evaluated with."""
    from torchvision import models

    try:
        transforms = models.get_model_weights(factory).DEFAULT.transforms()
    except (ValueError, AttributeError):
        return 224, 16
    size = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None) or [224]
    # Segmentation weights give a list with the shorter side, the others a list with one or two sides.
    return int(size[0] if isinstance(size, (list, tuple)) else size), 16


def _timm(module: Any, factory: str) -> Examples | None:
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else getattr(config, "input_size", None)
    if not size:
        return None
    return (random_tensor((1, *size), "float32", None, 0),), {}


def _transformers(module: Any, factory: str) -> Examples | None:
    config = getattr(module, "config", None)
    name = getattr(module, "main_input_name", None)
    if config is None or not isinstance(name, str):
        return None
    makers: dict[str, Callable[[Any], Any]] = {
        "input_ids": _tokens,
        "pixel_values": _pixels,
        "input_features": _mel_frames,
    }
    if name not in makers:
        return None
    tensor = makers[name](config)
    if tensor is None:
        return None
    parameters = inspect.signature(module.forward).parameters
    inputs: dict[str, Any] = {name: tensor}
    if "decoder_input_ids" in parameters:
        inputs["decoder_input_ids"] = _tokens(config)
    return (), inputs


def default_options(module: Any, given: Collection[str]) -> dict[str, Any]:
    """Return keyword arguments that `module` needs to be compiled and that are not among the `given` names.

    A cache of keys and values is state, so models of transformers are asked for the plain forward pass.
    """
    if not isinstance(getattr(module, "main_input_name", None), str) or "use_cache" in given:
        return {}
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def _tokens(config: Any) -> Any:
    vocabulary = getattr(config, "vocab_size", None)
    if not vocabulary:
        return None
    length = min(32, getattr(config, "max_position_embeddings", None) or 32)
    return random_tensor((1, length), "int64", (0, vocabulary - 1), 0)


def _pixels(config: Any) -> Any:
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return random_tensor((1, getattr(config, "num_channels", 3), height, width), "float32", None, 0)


def _mel_frames(config: Any) -> Any:
    bins, positions = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    return random_tensor((1, bins, 2 * positions), "float32", None, 0) if bins and positions else None


_FAMILIES: tuple[Callable[[Any, str], Examples | None], ...] = (_torchvision, _timm, _transformers)
