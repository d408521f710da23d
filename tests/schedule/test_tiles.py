import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.schedule.tiles import BUSY, Tile, choose_tile, cost, legal_tiles
from compiler.target import load

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "znver4", "rpi3", "rpi4", "riscv64")


def tiles(name):
    return legal_tiles(load(name), max_rows=28, max_vectors=4)


@pytest.mark.parametrize("name", TARGETS)
def test_a_legal_tile_leaves_registers_for_weights_and_a_broadcast(name):
    registers = load(name).vector.registers
    assert all(tile.accumulators + tile.vectors + 1 < registers for tile in tiles(name))
    assert Tile(1, 1) in tiles(name)
    assert len(set(tiles(name))) == len(tiles(name))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [None, 1, 2, 7, 13, 56, 197, 3136])
@pytest.mark.parametrize("vectors", [None, 1, 2, 3, 5, 16])
def test_the_choice_is_legal_and_no_larger_than_the_output(name, rows, vectors):
    tile = choose_tile(tiles(name), rows, vectors)
    assert tile in tiles(name)
    assert rows is None or tile.rows <= rows
    assert vectors is None or tile.vectors <= vectors


def test_long_rows_on_avx2_get_six_columns_by_two_vectors():
    # 12 accumulators, 2 weights and a broadcast of 16 registers.
    for rows in (None, 48, 56, 112, 3136):
        assert choose_tile(tiles("x86-64-v3"), rows, 8) == Tile(6, 2)


def test_twice_the_registers_get_more_accumulators():
    for name in ("x86-64-v4", "rpi4"):
        for rows in (None, 48, 56, 112, 3136):
            assert choose_tile(tiles(name), rows, 8).accumulators > Tile(6, 2).accumulators


def test_a_tile_that_divides_beats_its_neighbours():
    assert choose_tile(tiles("x86-64-v4"), 14, 8).rows in (7, 14)
    assert choose_tile(tiles("x86-64-v4"), 7, 8).rows == 7


def test_few_accumulators_cost_their_latency():
    narrow, busy = cost(Tile(1, 1), 64, 8), cost(Tile(6, 2), 64, 8)
    assert narrow > BUSY - 1
    assert 1 < busy < 1.2


@given(
    rows=st.integers(1, 300),
    vectors=st.integers(1, 60),
    tile=st.builds(Tile, st.integers(1, 28), st.integers(1, 4)),
)
def test_no_tile_is_faster_than_the_ideal_machine(rows, vectors, tile):
    assert cost(tile, rows, vectors) >= 1


@given(tile=st.builds(Tile, st.integers(1, 28), st.integers(1, 4)), times=st.integers(1, 9))
def test_whole_tiles_cost_the_same_however_many_there_are(tile, times):
    one = cost(tile, tile.rows, tile.vectors)
    assert cost(tile, times * tile.rows, tile.vectors) == pytest.approx(one)
    assert cost(tile, tile.rows, times * tile.vectors) == pytest.approx(one)
    # A row more needs code of its own.
    assert cost(tile, times * tile.rows + 1, tile.vectors) > one or tile.rows == 1
