import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.schedule.conv2d import Decisions, Extents, default, legal
from compiler.schedule.tiles import Tile
from compiler.target import load
from tests.schedule.convolutions import check, geometry
from tests.schedule.kernels import cpu, lanes_of, random, runnable

NONE = (0, 0, 0, 0)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("data", "weight", "shape"),
    [
        ((1, 32, 14, 14), (32, 32, 3, 3), geometry()),
        ((2, 20, 9, 13), (33, 20, 3, 3), geometry(strides=(2, 2))),
        ((1, 64, 7, 7), (128, 64, 1, 1), geometry(padding=NONE)),
        ((1, 16, 11, 37), (16, 16, 5, 3), geometry(padding=(2, 0, 1, 3), dilation=(1, 2))),
        ((1, 64, 8, 8), (64, 32, 3, 3), geometry(groups=2)),
    ],
)
def test_blocked_convolutions(target, data, weight, shape):
    check(cpu(target), random(*data), random(*weight), shape)


@pytest.mark.parametrize("target", runnable())
def test_a_first_layer_reads_plain_nchw(target):
    shape = geometry(strides=(2, 2), padding=(3, 3, 3, 3))
    check(cpu(target), random(1, 3, 27, 29), random(40, 3, 7, 7), shape, blocked=False)


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 45),
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    kernel_size=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 3),
    batch=st.integers(1, 2),
)
def test_any_geometry(width, channels, outputs, kernel_size, stride, batch):
    size = max(width, kernel_size)
    shape = geometry(strides=(stride, stride), padding=(kernel_size // 2,) * 4)
    data, weight = random(batch, channels, size, size), random(outputs, channels, kernel_size, kernel_size)
    check(load("host"), data, weight, shape)


@pytest.mark.parametrize("blocks", [5, 7, 11, 55])
@pytest.mark.parametrize("kernel", [1, 3])
def test_numbers_of_channel_blocks_that_no_tile_divides(blocks, kernel):
    target = load("host")
    outputs = blocks * lanes_of(target) - 3
    shape = geometry(padding=(kernel // 2,) * 4)
    check(target, random(1, 12, 6, 9), random(outputs, 12, kernel, kernel), shape)


@pytest.mark.parametrize("size", [(7, 7), (13, 13), (1, 1), (1, 9), (5, 1)])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("blocks", [2, 5])
def test_pointwise_convolutions_of_whole_images(size, images, blocks):
    target = load("host")
    outputs = blocks * lanes_of(target)
    check(target, random(images, 20, *size), random(outputs, 20, 1, 1), geometry(padding=NONE))


@pytest.mark.parametrize("options", [{"strides": (2, 2), "padding": NONE}, {"padding": (1, 1, 1, 1)}])
def test_pointwise_convolutions_whose_rows_are_not_those_of_the_image(options):
    check(load("host"), random(2, 16, 7, 9), random(24, 16, 1, 1), geometry(**options))


def _some(tiles):
    """Return the tiles at the edges of what is legal, and every seventh between them."""
    widest = [
        max((t for t in tiles if t.vectors == v), key=lambda t: t.rows) for v in {t.vectors for t in tiles}
    ]
    return sorted({*widest, *tiles[::7]}, key=lambda t: (t.rows, t.vectors))


@pytest.mark.parametrize("tile", _some(legal(load("host"))), ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_legal_tile_computes_the_same_in_any_chunks(tile, kernel):
    target = load("host")
    data, weight = random(1, 9, 7, 9), random(5 * lanes_of(target), 9, kernel, kernel)
    for chunk in (1, 3, 7, 100):
        shape = geometry(padding=(kernel // 2,) * 4)
        check(target, data, weight, shape, decisions=Decisions(tile, chunk))


def test_every_legal_tile_fits_the_registers_and_the_default_is_one_of_them():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4", "riscv64"):
        target = load(name)
        tiles = legal(target)
        assert all(tile.accumulators < target.vector.registers for tile in tiles)
        for rows in (None, 1, 56):
            for width in (None, 1, 7, 13, 56, 113):
                for blocks in (None, 1, 3, 8):
                    decisions = default(Extents(1, blocks, rows, width, 4096.0), target)
                    assert decisions.tile in tiles
                    assert decisions.chunk >= 1


def test_the_default_wastes_no_columns_where_a_tile_divides_them():
    target = load("x86-64-v4")
    for width in (7, 14, 28, 56, 112):
        tile = default(Extents(1, 8, width, width, 4096.0), target).tile
        assert width % tile.rows == 0, (width, tile)
        assert tile.accumulators >= 7


def test_a_task_takes_rows_or_the_tiles_of_a_pointwise_convolution():
    target = load("x86-64-v3")
    rows = default(Extents(1, 8, 56, 56, 56 * 64 * 4.0), target)
    assert rows.tile == Tile(6, 2)
    assert 1 < rows.chunk <= 56
    tiles = default(Extents(1, 8, 1, 56 * 56, 56 * 56 * 64 * 4.0), target)
    assert 1 < tiles.chunk <= -(-56 * 56 // tiles.tile.rows)
    assert default(Extents(1, 8, None, None, float("inf")), target).chunk == 1


def test_blocks_of_a_tile_are_of_one_group():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4"):
        for blocks, groups in ((8, 2), (6, 2), (9, 3), (10, 5), (32, 32)):
            tile = default(Extents(1, blocks, 14, 14, 4096.0, groups), load(name)).tile
            assert blocks // groups % tile.vectors == 0
