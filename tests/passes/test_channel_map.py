import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compiler.passes.channel_map import Blocks, joined, whole


def test_a_slice_forgets_the_sources_that_it_leaves_out():
    both = joined([whole("a", 3), whole("b", 4)], 0)
    part = both.picked(0, slice(4, 6))
    assert part.sources == ("b",)
    assert part.picks.tolist() == [[0, 1], [0, 2]]
    assert part.joins == 1


def test_a_source_that_occurs_twice_is_one():
    part = whole("a", 5).picked(0, slice(2, 4))
    twice = joined([part, joined([whole("b", 1), part], 0)], 0)
    assert twice.sources == ("a", "b")
    assert twice.picks.tolist() == [[0, 2], [0, 3], [1, 0], [0, 2], [0, 3]]
    assert twice.joins == 2


def test_whole_blocks_that_follow_one_another_are_one():
    both = joined([whole("a", 8), whole("b", 6)], 0)
    assert both.whole_blocks([8, 6], 4) == [Blocks(0, 0, 2), Blocks(1, 0, 2)]
    assert both.picked(0, slice(4, 12)).whole_blocks([8, 6], 4) == [Blocks(0, 1, 2), Blocks(1, 0, 1)]
    assert both.picked(0, slice(0, 7)).whole_blocks([8], 4) is None, "the eighth channel would be rubbish"
    assert both.picked(0, slice(2, 6)).whole_blocks([8], 4) is None


@given(
    parts=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), max_size=3),
    lanes=st.sampled_from([4, 8]),
)
def test_maps_do_what_arrays_do(parts, steps, lanes):
    arrays = [100 * number + np.arange(part) for number, part in enumerate(parts)]
    values = np.concatenate(arrays)
    channels = joined([whole(number, part) for number, part in enumerate(parts)], 0)
    for start, step in steps:
        if len(values[start::step]) == 0:
            continue
        values, channels = values[start::step], channels.picked(0, slice(start, None, step))
        if len(values) % 2 == 0:
            values = values.reshape(2, -1).T.reshape(-1)
            channels = channels.reshaped((2, -1)).permuted((1, 0)).reshaped((-1,))
    got = [arrays[channels.sources[number]][channel] for number, channel in channels.picks]
    np.testing.assert_array_equal(got, values)
    blocks = channels.whole_blocks([parts[source] for source in channels.sources], lanes)
    if blocks is not None:
        moved = [
            arrays[channels.sources[block.source]][block.first * lanes : block.end * lanes]
            for block in blocks
        ]
        np.testing.assert_array_equal(np.concatenate(moved), values)
