import itertools

import pytest

from compiler.passes.kernels.winograd import SIZES
from compiler.passes.winograd_choice import choose_winograd

LANES = (4, 8, 16)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("channels", "size"), [(64, 56), (128, 28), (256, 28), (128, 112)])
def test_large_maps_of_many_channels_take_the_largest_tiles(lanes, channels, size):
    assert choose_winograd(1, channels, channels, size, size, lanes) == 4


@pytest.mark.parametrize("lanes", LANES)
def test_where_reading_weights_is_most_of_the_work_tiles_are_small(lanes):
    """On 7 x 7 pixels, m = 4 pads to 8 x 8 and has 36 weights for each 9 of the direct convolution."""
    assert choose_winograd(1, 512, 512, 7, 7, lanes) in (2, None)
    assert choose_winograd(1, 512, 512, 7, 7, 8) == 2


@pytest.mark.parametrize("lanes", LANES)
def test_codes_are_transformed_where_enough_tiles_read_them(lanes):
    def chosen(channels, size):
        return choose_winograd(1, channels, channels, size, size, lanes, coded=True)

    assert [chosen(64, 56), chosen(128, 28)] == [4, 4]
    assert chosen(256, 14) in (2, 4)
    assert chosen(512, 7) in (2, None)
    assert chosen(512, 1) is chosen(lanes, 56) is None


@pytest.mark.parametrize("lanes", LANES)
def test_few_channels_do_not_pay_for_the_transforms(lanes):
    assert choose_winograd(1, 3, 8, 224, 224, lanes) is None
    assert choose_winograd(1, lanes, lanes, 56, 56, lanes) is None


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("channels", [8, 64, 512])
def test_images_of_one_pixel_stay_direct(lanes, channels):
    assert choose_winograd(1, channels, channels, 1, 1, lanes) is None


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", [7, 14, 28, 56])
def test_more_channels_never_undo_the_choice(lanes, size):
    chosen = [choose_winograd(1, c, c, size, size, lanes) is not None for c in (8, 16, 32, 64, 128, 256, 512)]
    assert chosen == sorted(chosen)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("channels", [64, 256, 512])
def test_more_images_never_undo_the_choice(lanes, channels):
    """Weights are read once for all of them."""
    chosen = [choose_winograd(n, channels, channels, 8, 8, lanes) or 0 for n in (1, 2, 4, 8, 16, 32)]
    assert chosen == sorted(chosen)


@pytest.mark.parametrize("lanes", LANES)
def test_wider_vectors_make_the_transforms_dearer(lanes):
    for channels, size in itertools.product((16, 32, 64, 256), (7, 14, 28)):
        if choose_winograd(1, channels, channels, size, size, 2 * lanes) is not None:
            assert choose_winograd(1, channels, channels, size, size, lanes) is not None


def test_channels_in_and_out_count_alike():
    for inputs, outputs, size in itertools.product((16, 64, 256), (32, 128), (7, 28)):
        forward = choose_winograd(1, inputs, outputs, size, size, 8)
        assert forward == choose_winograd(1, outputs, inputs, size, size, 8)
        assert forward in (None, *SIZES)
