"""Folders of images as calibration data, with the transform that the model was trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from compiler.support.errors import InputError, UsageError, did_you_mean
from compiler.support.signature import Signature, TensorSpec

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_MODES = {1: "L", 3: "RGB"}
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")

Size = tuple[int, ...]


@dataclass(frozen=True)
class ImageTransform:
    """From a picture to an input: resize, crop the middle, scale, normalize, lay out.

    The arithmetic is torchvision's: ``(pixel * scale - mean) / std`` for pixels of 0 to 255. `resize` and
    `crop` are (height, width) in pixels; a `resize` of one number is the shorter side, and None is left out.
    `mean` and `std` have a value for each channel, or one for all.

    As text: ``resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225``; sizes may be
    ``240x320``, and scale a fraction.
    """

    resize: Size | None = None
    crop: Size | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: str = "NCHW"
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        if self.layout not in ("NCHW", "NHWC"):
            raise UsageError(f"expected the layout NCHW or NHWC, got '{self.layout}'")
        if self.filter not in _FILTERS:
            raise UsageError(f"expected a filter of {', '.join(_FILTERS)}, got '{self.filter}'")
        if not all(self.std) or not self.scale:
            raise UsageError("expected a scale and standard deviations other than zero")

    @classmethod
    def parse(cls, text: str) -> ImageTransform:
        """Return the transform that `text` describes.

        Raises:
            UsageError: no such field, or a value that is none.
        """
        values: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in _READERS:
                near = did_you_mean(name, _READERS)
                raise UsageError(f"an image has no '{name}'{near} (there are: {', '.join(_READERS)})")
            try:
                values[name] = _READERS[name](value)
            except (ValueError, ZeroDivisionError) as error:
                raise UsageError(f"expected {name}={_EXAMPLES[name]} or the like, got '{part}'") from error
        return cls(**values)

    def __str__(self) -> str:
        default = ImageTransform()
        changed = [f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)]
        return ",".join(f"{name}={_write(name, getattr(self, name))}" for name in changed)

    def __call__(self, image: Any, channels: int = 3) -> np.ndarray:
        """Return a picture (PIL.Image) as one sample: float32, without the axis of batches.

        Raises:
            InputError: mean or std has not a value for each channel.
        """
        image = image.convert(_MODES[channels])
        if self.resize is not None:
            image = _resized(image, self.resize, self.filter)
        if self.crop is not None:
            image = _cropped(image, self.crop)
        pixels = np.asarray(image, np.float32).reshape(image.height, image.width, channels)
        mean, std = (np.array(each, np.float32) for each in (self.mean, self.std))
        for name, each in (("mean", mean), ("std", std)):
            if each.size not in (1, channels):
                raise InputError(f"expected 1 or {channels} values for {name}, got {each.size}")
        values = (pixels * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "NCHW" else values)


def _resized(image: Any, size: Size, name: str) -> Any:
    """Resize as torchvision does: one number is the shorter side, and the longer is rounded down."""
    from PIL import Image

    if len(size) == 1:
        short, width, height = size[0], image.width, image.height
        long = int(short * max(width, height) / min(width, height))
        size = (long, short) if width <= height else (short, long)
    return image.resize((size[1], size[0]), Image.Resampling[name.upper()])


def _cropped(image: Any, size: Size) -> Any:
    """Cut out the middle as torchvision does; outside of a smaller picture is black."""
    height, width = size * 2 if len(size) == 1 else size
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _read_size(text: str) -> Size:
    size = tuple(int(side) for side in text.split("x"))
    if not 1 <= len(size) <= 2 or min(size) < 1:
        raise ValueError(text)
    return size


def _read_floats(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split(":"))


_READERS: dict[str, Callable[[str], Any]] = {
    "resize": _read_size,
    "crop": _read_size,
    "mean": _read_floats,
    "std": _read_floats,
    "scale": lambda text: float(Fraction(text)),
    "layout": str,
    "filter": str,
}
_EXAMPLES = {
    "resize": "256",
    "crop": "224",
    "mean": "0.485:0.456:0.406",
    "std": "0.229:0.224:0.225",
    "scale": "1/255",
}


def _write(name: str, value: Any) -> str:
    if name in ("resize", "crop"):
        return "x".join(map(str, value))
    return ":".join(map(str, value)) if name in ("mean", "std") else str(value)


def find_images(folder: Path) -> list[Path]:
    """Return the images in `folder` and below, in the order of their names.

    Raises:
        InputError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if not found:
        raise InputError(f"expected images ({', '.join(_ENDINGS)}) in the folder '{folder}', found none")
    return found


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder as samples of the one input of a model, `batch` to a record."""

    folder: Path
    paths: tuple[Path, ...]
    spec: TensorSpec
    transform: ImageTransform
    batch: int

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yield where each record comes from, and the record.

        Raises:
            InputError: a file is no image, or has another size than the input after the transform.
        """
        for first in range(0, len(self.paths) - self.batch + 1, self.batch):
            paths = self.paths[first : first + self.batch]
            samples = [self._sample(path) for path in paths]
            yield f"'{paths[0]}'", (np.stack(samples),)

    def _sample(self, path: Path) -> np.ndarray:
        from PIL import Image

        wanted = self.spec.shape[1:]
        try:
            with Image.open(path) as image:
                sample = self.transform(image, _channels(self.spec, self.transform))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"cannot read the image '{path}' ({error}); mend or remove it") from error
        if any(isinstance(dim, int) and dim != n for dim, n in zip(wanted, sample.shape, strict=True)):
            raise InputError(
                f"input '{self.spec.name}': expected {_show(wanted)} after the transform, got "
                f"{_show(sample.shape)} from '{path}'; state the size, as in resize=256,crop=224"
            )
        if "float" in self.spec.dtype:
            return sample
        # A model that takes pixels; the former checks that they fit.
        return np.asarray(np.rint(sample), np.int64)


def open_folder(folder: Path, signature: Signature, transform: ImageTransform | None) -> ImageFolder:
    """Return the images of `folder` for a model with one input of images.

    Without a transform they are resized to the input, and to the range from 0 to 1 if it is of floats.

    Raises:
        UsageError: Pillow is missing, or the model does not take images.
        InputError: the folder holds no images, or not enough for one batch.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UsageError("reading images needs Pillow: pip install pillow") from error
    spec = signature.inputs[0] if len(signature.inputs) == 1 else None
    chosen = transform or _plain(spec)
    if spec is None or len(spec.shape) != 4 or _channels(spec, chosen) not in _MODES:
        inputs = "; ".join(map(str, signature.inputs))
        raise UsageError(
            f"expected one input of images with 1 or 3 channels ({chosen.layout}) for the folder '{folder}', "
            f"got {inputs}; give a .npz file or a generator, or layout=NHWC"
        )
    if chosen.resize is None and chosen.crop is None:
        height, width = _sides(spec, chosen)
        if isinstance(height, int) and isinstance(width, int):
            chosen = replace(chosen, resize=(height, width))
    paths, first = find_images(folder), spec.shape[0]
    batch = first if isinstance(first, int) else max(signature.dims.get(first, (1, None))[0], 1)
    if len(paths) < batch:
        raise InputError(f"expected at least {batch} images in '{folder}' for one batch, got {len(paths)}")
    return ImageFolder(folder, tuple(paths), spec, chosen, batch)


def _plain(spec: TensorSpec | None) -> ImageTransform:
    """Return the transform for want of one: from 0 to 1, or pixels as they are for an input of integers."""
    takes_floats = spec is None or "float" in spec.dtype
    return ImageTransform() if takes_floats else ImageTransform(scale=1.0)


def _channels(spec: TensorSpec, transform: ImageTransform) -> Any:
    return spec.shape[1 if transform.layout == "NCHW" else 3]


def _sides(spec: TensorSpec, transform: ImageTransform) -> Sequence[Any]:
    return spec.shape[2:] if transform.layout == "NCHW" else spec.shape[1:3]


def _show(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape))
