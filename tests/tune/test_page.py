"""The page about a tuning tells from the log alone how it went."""

import dataclasses
import re

import pytest

from compiler.support.errors import InputError
from compiler.tune.beside import Beside, PeerTime
from compiler.tune.page import curve, of_network, words, write_page
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


def test_what_no_log_holds_is_added(tmp_path):
    path, first = tmp_path / "page.html", RECORDS[0].workload
    beside = Beside(
        sources={first: "def main(a: T.Buffer) -> <script>"},
        peaks={first: 8e9},
        peer=PeerTime("<openvino>", 0.0125),
        rest=1e-3,
    )
    write_page(RECORDS, "net", path, beside)
    text = path.read_text(encoding="utf-8")
    for part in (
        "<th>of peak</th>", "<td>50%</td>", "&lt;openvino&gt; 12.500 ms", "One run of the network, estimated",
        "<details><summary>a 1x2 -&gt; 3x4 float32</summary>", "def main(a: T.Buffer) -&gt; &lt;script&gt;",
    ):  # fmt: skip
        assert part in text, part
    times = [float(number) for number in re.search(r'"y":\[([\d.,]+)\]', text)[1].split(",")]
    assert times == pytest.approx([10, 8, 8, 7])
    write_page(RECORDS, "net", path)
    plain = path.read_text(encoding="utf-8")
    assert "<th>of peak</th>" not in plain
    assert "<details>" not in plain


def test_what_was_measured_for_a_choice_is_no_kernel_of_the_network(tmp_path):
    aside = [_record("choice #3", 1, 1.0, 10, calls=0), _record("b <i> #2", 3, 3e-3, 80, calls=0)]
    found = of_network([*aside, *RECORDS], {})
    assert {each.workload for each in found} == {each.workload for each in RECORDS}
    assert found[0].calls == 1
    assert [each.calls for each in of_network(aside, {"b <i> #2": 5})] == [5]
    write_page([*aside, *RECORDS], "net", tmp_path / "page.html")
    assert "choice" not in (tmp_path / "page.html").read_text(encoding="utf-8").split("<h2>Kernels")[1]
    with pytest.raises(InputError, match="got none"):
        write_page(aside, "net", tmp_path / "none.html")


def test_nothing_is_no_page(tmp_path):
    with pytest.raises(InputError, match="expected records to report about, got none"):
        write_page([], "net", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_decisions_in_words():
    assert (
        words({"tile": {"rows": 7, "vectors": 2}, "chunk": 4, "a": True, "b": False, "c": None})
        == "tile 7x2, chunk 4, a"
    )
