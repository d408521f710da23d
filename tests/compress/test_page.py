"""The page is one file that needs nothing else, and holds what the report says."""

from dataclasses import replace

import pytest

from compiler.compress.page import write_page
from compiler.compress.report import LayerReport
from compiler.support.errors import UsageError
from tests.compress.test_report import REPORT


def test_a_page_holds_charts_and_tables(tmp_path):
    path = tmp_path / "page.html"
    odd = LayerReport("<script>alert(1)</script>", "conv2d", "1x1", "a & b", 1.0, 2.0, 3.0)
    write_page(replace(REPORT, layers=(*REPORT.layers, odd)), "my <model>", path)
    text = path.read_text(encoding="utf-8")
    for part in (
        "my &lt;model&gt;",
        "look here",
        "accuracy 98 in float",
        "softmax_0",
        "it has no integer form",
    ):
        assert part in text
    assert "Each layer quantized alone" in text
    assert "-1 to 2 seen, codes for -1.1 to 2" in text
    assert "<script>alert(1)</script>" not in text
    assert 'src="http' not in text


def test_a_page_says_how_weights_are_stored(tmp_path):
    layers = (replace(REPORT.layers[0], bits=4, stored=8), *REPORT.layers[1:])
    write_page(replace(REPORT, layers=layers), "m", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>4, stored in 8</td>" in text
    assert "weights of 4 bits are stored in 8" in text


def test_axes_are_labelled_and_buttons_change_the_title(tmp_path):
    """A string as a title is no longer known to plotly.js."""
    two = (*REPORT.ranges, replace(REPORT.ranges[0], name="second", low=-3.0))
    write_page(replace(REPORT, ranges=two), "m", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for label in ("signal to quantization noise, dB", "between the red lines", "how many on the data"):
        assert label in text
    assert '"title.text":"second: -3 to 2 seen' in text.replace('": "', '":"')


def test_a_report_without_measurements_has_a_page_too(tmp_path):
    layers = tuple(replace(layer, own_sqnr=None, output_sqnr=None) for layer in REPORT.layers)
    write_page(replace(REPORT, layers=layers, ranges=(), floats=()), "m", tmp_path / "page.html")
    assert "Each layer quantized alone" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_without_plotly_the_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.io", None)
    with pytest.raises(UsageError, match="pip install plotly"):
        write_page(REPORT, "m", tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
