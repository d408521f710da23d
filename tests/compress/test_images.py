import numpy as np
import pytest

from compiler.compress.images import ImageTransform, find_images, open_folder
from compiler.support.errors import InputError, UsageError
from compiler.support.signature import Signature, TensorSpec
from tests.conftest import needs

needs("PIL", why="pip install pillow")
from PIL import Image  # noqa: E402

IMAGENET = "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def picture(width, height, mode="RGB"):
    generator = np.random.default_rng(0)
    depth = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    return Image.fromarray(generator.integers(0, 256, (height, width, *depth), np.uint8), mode)


def signature(*shape, dtype="float32", **dims):
    return Signature((TensorSpec("x", shape, dtype),), (), dims=dims)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    picture(40, 30).save(tmp_path / "b.png")
    picture(30, 40).save(tmp_path / "a.JPG")
    picture(31, 31, "L").save(tmp_path / "sub" / "c.png")
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resize=256",
        "resize=240x320,crop=224",
        IMAGENET,
        "scale=1/128,mean=1.0,std=2.0",
        "layout=NHWC,filter=bicubic",
    ],
)
def test_text_and_back(text):
    transform = ImageTransform.parse(text)
    assert ImageTransform.parse(str(transform)) == transform
    assert text.startswith("scale") or str(transform) == text


def test_what_the_text_says():
    transform = ImageTransform.parse(" resize=256 , crop=224x112,mean=0.5,std=0.1:0.2:0.3,scale=1/2")
    assert transform == ImageTransform((256,), (224, 112), (0.5,), (0.1, 0.2, 0.3), 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resise=3", "an image has no 'resise'; did you mean 'resize'? (there are: resize, crop, mean, std,"),
        ("resize=big", "expected resize=256 or the like, got 'resize=big'"),
        ("crop=0", "expected crop=224 or the like, got 'crop=0'"),
        ("resize=1x2x3", "expected resize=256 or the like, got 'resize=1x2x3'"),
        ("mean=1;2", "expected mean=0.485:0.456:0.406 or the like, got 'mean=1;2'"),
        ("scale=1/0", "expected scale=1/255 or the like, got 'scale=1/0'"),
        ("std=1:0:1", "expected a scale and standard deviations other than zero"),
        ("layout=CHW", "expected the layout NCHW or NHWC, got 'CHW'"),
        ("filter=box", "expected a filter of nearest, bilinear, bicubic, lanczos, got 'box'"),
    ],
)
def test_texts_that_are_wrong(text, message):
    with pytest.raises(UsageError) as caught:
        ImageTransform.parse(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("size", [(300, 280), (280, 300), (257, 411), (500, 256)])
def test_it_is_what_torchvision_does(size):
    needs("torchvision", why="make setup")
    from torchvision import transforms

    image = picture(*size)
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(image)
    np.testing.assert_allclose(ImageTransform.parse(IMAGENET)(image), theirs.numpy(), atol=1e-6)


def test_layouts_channels_and_modes():
    transform = ImageTransform.parse("resize=4x6")
    assert transform(picture(20, 10)).shape == (3, 4, 6)
    assert transform(picture(20, 10), channels=1).shape == (1, 4, 6)
    assert transform(picture(20, 10, "RGBA")).shape == (3, 4, 6)
    assert ImageTransform.parse("resize=4x6,layout=NHWC")(picture(20, 10, "L")).shape == (4, 6, 3)
    # Outside of a small picture is black.
    assert ImageTransform.parse("crop=12")(picture(10, 10))[:, 0].max() == 0
    with pytest.raises(InputError, match="expected 1 or 1 values for mean, got 3"):
        ImageTransform.parse("mean=1:2:3")(picture(3, 3), channels=1)


def test_images_in_order_of_their_names(folder):
    assert [path.name for path in find_images(folder)] == ["a.JPG", "b.png", "c.png"]
    images = open_folder(folder, signature(1, 3, 24, 24), ImageTransform.parse("resize=26,crop=24"))
    records = list(images.records())
    assert [where.split("/")[-1] for where, _ in records] == ["a.JPG'", "b.png'", "c.png'"]
    assert [record[0].shape for _, record in records] == [(1, 3, 24, 24)] * 3
    assert [record[0].shape for _, record in images.records()] == [(1, 3, 24, 24)] * 3


def test_batches_and_symbolic_ones(folder):
    images = open_folder(folder, signature(2, 3, 8, 8), ImageTransform.parse("resize=8x8"))
    assert [record[0].shape for _, record in images.records()] == [(2, 3, 8, 8)]
    images = open_folder(folder, signature("N", 3, "H", "W", N=(1, 4), H=(1, None), W=(1, None)), None)
    assert [record[0].shape[2:] for _, record in images.records()] == [(40, 30), (30, 40), (31, 31)]


def test_without_a_transform_the_size_is_the_inputs(folder):
    images = open_folder(folder, signature(1, 3, 12, 10), None)
    _, (record,) = next(iter(images.records()))
    assert record.shape == (1, 3, 12, 10)
    assert 0 <= record.min() < record.max() <= 1
    _, (record,) = next(iter(open_folder(folder, signature(1, 3, 12, 10, dtype="uint8"), None).records()))
    assert record.dtype == np.int64
    assert record.max() > 100


def test_folders_and_models_that_do_not_fit(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected images \(\.jpg, .*found none"):
        open_folder(tmp_path / "empty", signature(1, 3, 8, 8), None)
    with pytest.raises(UsageError, match=r"expected one input of images .* got x: 1x5x8x8 float32"):
        open_folder(folder, signature(1, 5, 8, 8), None)
    with pytest.raises(UsageError, match="or layout=NHWC"):
        open_folder(folder, signature(1, 8, 8, 3), None)
    images = open_folder(folder, signature(1, 8, 8, 3), ImageTransform(layout="NHWC"))
    assert images.transform.resize == (8, 8)
    with pytest.raises(InputError, match=r"expected at least 4 images in .* for one batch, got 3"):
        open_folder(folder, signature(4, 3, 8, 8), None)
    images = open_folder(folder, signature(1, 3, 8, 8), ImageTransform.parse("resize=9"))
    with pytest.raises(InputError, match=r"expected 3x8x8 after the transform, got 3x12x9 from '.*a\.JPG'"):
        list(images.records())


def test_files_that_are_no_images(folder):
    (folder / "b.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"cannot read the image '.*b\.png' \(.*\); mend or remove it"):
        list(open_folder(folder, signature(1, 3, 8, 8), None).records())
    whole = (folder / "a.JPG").read_bytes()
    (folder / "a.JPG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read the image '.*a\.JPG'"):
        list(open_folder(folder, signature(1, 3, 8, 8), None).records())
