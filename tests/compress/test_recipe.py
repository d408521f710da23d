"""Recipes from names and files."""

from pathlib import Path

import pytest

from compiler.compress.ranges import LeastSquares, Percentile
from compiler.compress.recipe import Recipe, as_recipe, read_recipe
from compiler.compress.scheme import Float, Linear, Scheme, scheme_named
from compiler.support.errors import UsageError

EVERYTHING = """
scheme: int8-tensor
method: percentile:99.9
skip: ["head.*", conv1]
first: float
last: quantize
bias_correction: false
rounding: adaptive
equalize: true
balance: 0.6
samples: 64
"""


def test_a_name_is_a_scheme_and_a_recipe_itself():
    assert as_recipe("int8") == Recipe()
    assert Recipe().method == LeastSquares()
    assert as_recipe(Recipe(first="float")) == Recipe(first="float")
    with pytest.raises(UsageError, match=r"no scheme 'int9'"):
        as_recipe("int9")


def test_a_file_may_state_everything_or_little(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(EVERYTHING, encoding="utf-8")
    expected = Recipe(
        scheme=scheme_named("int8-tensor"),
        method=Percentile(99.9),
        skip=("head.*", "conv1"),
        first="float",
        last="quantize",
        rounding="adaptive",
        bias_correction=False,
        equalize=True,
        balance=0.6,
        samples=64,
    )
    assert as_recipe(str(path)) == as_recipe(path) == expected
    path.write_text("first: float", encoding="utf-8")
    assert read_recipe(path) == Recipe(first="float")


@pytest.mark.parametrize("text", ["off", "'off'", "false"])
def test_balancing_is_turned_off_as_yaml_spells_it(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"balance: {text}", encoding="utf-8")
    assert read_recipe(path) == Recipe(balance="off")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: int8", r"no key 'schema'; did you mean 'scheme'\? \(keys: scheme, method"),
        ("scheme: int9", "recipe '.*': there is no scheme 'int9'"),
        ("scheme: 8", r"expected scheme to be a text, got 8 \(int\)"),
        ("method: best", "no calibration method 'best'"),
        ("skip: conv1", r"expected skip to be a list of names, got 'conv1' \(str\)"),
        ("skip: [1]", "expected skip to be a list of names"),
        ("first: no", r"expected first to be a text, got False \(bool\)"),
        ("first: int4", "expected first to be quantize or float, got 'int4'"),
        ("bias_correction: 1", r"expected bias_correction to be true or false, got 1 \(int\)"),
        ("rounding: up", "expected rounding to be nearest or adaptive, got 'up'"),
        ("balance: on", r"expected balance to be a text, got True \(bool\)"),
        ("balance: much", "expected balance to be auto, off or a number, got 'much'"),
        ("balance: 1.5", "expected balance to be from 0 to 1, got 1.5"),
        ("samples: many", "expected samples to be a number"),
        ("samples: 0", "expected at least 1 sample"),
        ("", "expected 'scheme: int8' and the like in the recipe '.*', got nothing"),
        ("- int8", "expected 'scheme: int8' and the like"),
        ("a: [", "expected YAML in the recipe"),
    ],
)
def test_wrong_files_are_told_what_is_wrong(text, message, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        as_recipe(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the recipe 'nowhere\.yaml'"):
        as_recipe(Path("nowhere.yaml"))
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="expected YAML"):
        as_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "int8", "int8-tensor", "int4", "int2-tensor", "int8-dynamic", "int4-g128", "bf16", "binary",
        "binary-xnor", "log2", "log2-weight-only",
    ],
)  # fmt: skip
def test_schemes_that_can_be_applied(name):
    as_recipe(name).check_scheme()


def test_a_scheme_that_no_kernel_computes_is_refused():
    mixed = Scheme("mixed", Linear(8), Float("bfloat16"))
    with pytest.raises(UsageError, match=r"'mixed' \(weights int8.*bfloat16\) cannot be applied: no kernel"):
        Recipe(scheme=mixed).check_scheme()


@pytest.mark.parametrize("scheme", ["log2", "binary", "bf16"])
def test_only_steps_of_one_size_are_rounded_adaptively(scheme):
    with pytest.raises(UsageError, match=f"adaptive rounding .* the scheme '{scheme}' .* leave out rounding"):
        Recipe(scheme=scheme_named(scheme), rounding="adaptive").check_scheme()
    Recipe(scheme=scheme_named("int4-g128"), rounding="adaptive").check_scheme()
