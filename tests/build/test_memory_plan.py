"""Tensors in one arena: none overlaps another that is alive, and little is wasted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.build.memory_plan import ALIGNMENT, Lifetime, plan_memory

lifetimes = st.lists(
    st.builds(
        lambda size, first, length: Lifetime(size, first, first + length),
        st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6),
    ),
    max_size=30,
)  # fmt: skip


@given(lifetimes)
@settings(deadline=None)
def test_what_is_alive_together_never_overlaps(tensors):
    plan = plan_memory(tensors)
    for place, each in enumerate(tensors):
        begin = plan.offsets[place]
        assert begin % ALIGNMENT == 0
        assert begin + each.size <= plan.size
        for other, another in enumerate(tensors[:place]):
            start = plan.offsets[other]
            apart = begin + each.size <= start or start + another.size <= begin
            assert apart or not each.meets(another)
    assert plan.least <= plan.size


def test_a_chain_takes_the_two_largest_neighbours():
    chain = [Lifetime(size, step, step + 1) for step, size in enumerate([640, 6400, 3200, 640])]
    plan = plan_memory(chain)
    assert plan.size == plan.least == 9600


def test_a_residual_keeps_its_input():
    plan = plan_memory([Lifetime(64, 0, 3), Lifetime(128, 1, 2), Lifetime(128, 2, 3), Lifetime(64, 3, 4)])
    assert plan.size == plan.least == 320


def test_nothing_needs_nothing():
    assert plan_memory([]) == plan_memory([])
    assert plan_memory([]).size == 0
