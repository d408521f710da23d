"""As few layers in float as suffice."""

import pytest

from compiler.compress.search import keep_fewest

LAYERS = [f"layer{i}" for i in range(20)]


@pytest.mark.parametrize("needed", [0, 1, 2, 7, 18, 19])
def test_the_fewest_are_found_in_few_tries(needed):
    tried = []

    def score(kept):
        tried.append(len(kept))
        assert list(kept) == LAYERS[: len(kept)]
        return 90 + 0.1 * min(len(kept), needed)

    found = keep_fewest(LAYERS, score, 90 + 0.1 * needed)
    assert found.met
    assert found.kept == tuple(LAYERS[:needed])
    assert found.score == pytest.approx(90 + 0.1 * needed)
    assert len(tried) <= 7


def test_the_best_is_told_where_none_suffices():
    found = keep_fewest(LAYERS, lambda kept: 50 + len(kept), 100)
    assert not found.met
    assert (found.kept, found.score) == (tuple(LAYERS[:19]), 69)


def test_one_layer_is_quantized_or_none_helps():
    assert keep_fewest(["only"], lambda kept: 1.0, 2.0).met is False
    assert keep_fewest(["only"], lambda kept: 2.0, 2.0).kept == ()
