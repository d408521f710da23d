"""The page about a tuning tells from the log alone how it went."""

import dataclasses

import pytest

from compiler.support.errors import InputError
from compiler.tune.page import curve, words, write_page
from tests.schedule.test_records import RECORD


def _record(work, rows, seconds, spent, **changes):
    made = dataclasses.replace(
        RECORD,
        workload=work,
        decisions={"tile": {"rows": rows, "vectors": 2}},
        seconds=(seconds,),
        spent=spent,
    )
    return dataclasses.replace(made, **changes)


RECORDS = [
    _record("a 1x2 -> 3x4 float32 #1", 1, 2e-3, 36, calls=2, default=True, flops=4e6),
    _record("b <i> #2", 1, 5e-3, 72, default=True),
    _record("a 1x2 -> 3x4 float32 #1", 2, 1e-3, 108, calls=2, flops=4e6),
    _record("a 1x2 -> 3x4 float32 #1", 3, 9e-3, 144, calls=2),
    dataclasses.replace(_record("b <i> #2", 9, 1.0, 180), status="crashed", seconds=()),
    _record("b <i> #2", 2, 4e-3, 36, session="next"),
]


def test_the_curve_falls_over_all_sessions():
    points = curve(RECORDS)
    assert [hours for hours, _ in points] == pytest.approx([0.02, 0.03, 0.04, 0.06])
    assert [seconds for _, seconds in points] == pytest.approx([9e-3, 7e-3, 7e-3, 6e-3])
    assert curve(RECORDS[:1]) == [(0.01, 4e-3)]


def test_the_page_shows_kernels_and_what_was_decided(tmp_path):
    path = tmp_path / "page.html"
    write_page(RECORDS, "net", path)
    text = path.read_text(encoding="utf-8")
    for part in (
        "Tuning of net", "9.000 ms at first, 6.000 ms at last", "5 ok, 1 crashed", "2 sessions",
        "<td>a 1x2 -&gt; 3x4 float32</td><td>2</td><td>3</td><td>4000</td>",
        "<td>2000</td><td>0.50</td><td>4</td>",
        "tile 2x2", "b &lt;i&gt;", "plotly",
    ):  # fmt: skip
        assert part in text, part


def test_nothing_is_no_page(tmp_path):
    with pytest.raises(InputError, match="expected records to report about, got none"):
        write_page([], "net", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_decisions_in_words():
    assert (
        words({"tile": {"rows": 7, "vectors": 2}, "chunk": 4, "a": True, "b": False, "c": None})
        == "tile 7x2, chunk 4, a"
    )
