"""The tables themselves: what is converted, what is refused, and the page that lists both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision

from compiler.frontend import load
from compiler.frontend.converters import CONVERTERS, REFUSED, decomposition_table
from compiler.frontend.converters.decompositions import KEPT_WHOLE
from compiler.frontend.converters.rewrites import OWN, library_rewrites
from compiler.support.errors import ModelError

from .harness import as_module

PAGE = Path(__file__).resolve().parents[3] / "docs" / "operators.md"


def test_nothing_is_both_converted_and_refused():
    assert not CONVERTERS.keys() & REFUSED.keys()


def test_what_is_kept_whole_has_a_converter():
    assert {op.__name__ for op in KEPT_WHOLE} <= CONVERTERS.keys()
    assert not set(KEPT_WHOLE) & set(decomposition_table())


def test_the_page_lists_every_operator():
    listed = set(re.findall(r"`([A-Za-z_0-9]+(?:\.[A-Za-z_0-9]+)?)`", PAGE.read_text()))
    assert CONVERTERS.keys() | REFUSED.keys() | {op.__name__ for op in OWN} <= listed
    rewritten = {op.__name__ for op in decomposition_table() if op in {**OWN, **library_rewrites()}}
    unknown = {name for name in listed if re.search(r"\.(default|Tensor|Scalar|int|dim)$", name)}
    assert unknown <= CONVERTERS.keys() | REFUSED.keys() | rewritten


@pytest.mark.parametrize("remedy", sorted(set(REFUSED.values())))
def test_a_refusal_says_what_to_do(remedy):
    assert ";" in remedy or "freeze" in remedy or "fold" in remedy


REFUSALS = {
    "nonzero": (lambda x: x.nonzero(), "multiply or torch.where"),
    "masked select": (lambda x: x.masked_select(x > 0), "torch.where"),
    "mask as index": (lambda x: x[x > 0], "torch.where"),
    "random": (lambda x: x + torch.rand(3, 4), "pass them as an input"),
    "median": (lambda x: x.median(1).values, "sort"),
    "singular values": (lambda x: torch.linalg.svdvals(x), "outside of the model"),
    "complex output": (lambda x: torch.fft.rfft(x), "complex"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name):
    function, remedy = REFUSALS[name]
    with pytest.raises(ModelError, match=re.escape(remedy)):
        load(as_module(function), (torch.randn(3, 4),))


def test_non_maximum_suppression_is_refused():
    boxes, scores = torch.rand(4, 4), torch.rand(4)
    with pytest.raises(ModelError, match="run NMS after it"):
        load(as_module(lambda b, s: torchvision.ops.nms(b, s, 0.5)), (boxes, scores))
