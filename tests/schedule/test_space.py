"""Spaces of decisions, and what every rule lets one decide."""

from compiler.schedule.conv2d import Decisions
from compiler.schedule.space import Space, from_plain, to_plain, untuned
from compiler.schedule.tiles import Tile

SPACE = Space(
    Decisions(Tile(3, 2), 1),
    {"tile": [Tile(3, 1), Tile(3, 2)], "chunk": [1, 2, 4]},
    lambda decisions: decisions.chunk < 4 or decisions.tile.vectors == 1,
)


def test_the_default_comes_first_and_what_is_not_legal_not_at_all():
    every = list(SPACE)
    assert every[0] == SPACE.default
    assert [(each.tile.vectors, each.chunk) for each in every] == [(2, 1), (1, 1), (1, 2), (1, 4), (2, 2)]
    assert SPACE.size == 6
    assert all(each in SPACE for each in every)
    assert Decisions(Tile(3, 2), 4) not in SPACE
    assert Decisions(Tile(4, 2), 1) not in SPACE
    assert Decisions(Tile(3, 1), 1, kernel_first=True) not in SPACE, "what has no axis stays"
    assert "else" not in SPACE


def test_a_default_that_no_axis_has_belongs_to_the_space():
    space = Space(Decisions(Tile(9, 9), 7), {"chunk": [1]})
    assert list(space) == [space.default, Decisions(Tile(9, 9), 1)]
    assert space.default in space


def test_decisions_become_plain_and_come_back():
    decisions = Decisions(Tile(3, 1), 2)
    plain = to_plain(decisions)
    assert plain == {
        "tile": {"rows": 3, "vectors": 1},
        "chunk": 2,
        "blocks_first": False,
        "kernel_first": False,
    }
    assert from_plain(plain, SPACE) == decisions
    # A record that an earlier Kiln wrote lacks what was not there to decide.
    assert from_plain({"tile": {"rows": 3, "vectors": 1}, "chunk": 2}, SPACE) == decisions
    for wrong in ({}, {**plain, "chunk": 3}, {**plain, "chunk": "many"}, {**plain, "tile": 3}):
        assert from_plain(wrong, SPACE) is None


def test_untuned_code_takes_the_default():
    assert untuned("conv2d", SPACE) == SPACE.default
