import pytest
import torch

from compiler.frontend import load
from compiler.frontend.factory import find, is_factory_text, make_module
from compiler.support.errors import ModelError, UsageError

MODELS = """
import torch
from torch import nn

def plain():
    return nn.Linear(4, 2)

def with_inputs():
    return nn.Linear(4, 2), torch.randn(3, 4)

def with_keywords():
    return nn.Linear(4, 2), {"input": torch.randn(3, 4)}

def sized(width, depth=1):
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]), torch.randn(1, width)

ready = nn.Linear(4, 2)

class Home:
    made = staticmethod(plain)

def raising():
    raise RuntimeError("no weights\\nhere")

def wrong():
    return 3

def triple():
    return nn.Linear(4, 2), 1, 2

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "factory_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "failing_models.py").write_text("raise ValueError('at import')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # restores sys.path and forgets what was imported
    for name in ("factory_models", "broken_models", "failing_models"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("home", ["factory_models", "factory_models.py", "./factory_models.py"])
def test_modules_and_files_of_the_working_directory(here, home):
    assert load(f"{home}:with_inputs").signature.inputs[0].shape == (3, 4)


def test_what_a_factory_may_give(here):
    assert load("factory_models:with_keywords").signature.inputs[0].shape == (3, 4)
    assert load("factory_models:plain", inputs=["input=5x4"]).signature.inputs[0].shape == (5, 4)
    assert load("factory_models:ready", inputs=["input=5x4"]).signature.outputs[0].shape == (5, 2)
    assert load("factory_models:Home.made", torch.randn(6, 4)).signature.inputs[0].shape == (6, 4)


def test_the_users_inputs_come_before_the_factorys(here):
    assert load("factory_models:with_inputs", inputs=["input=7x4"]).signature.inputs[0].shape == (7, 4)


def test_literal_arguments(here):
    assert len(make_module("factory_models:sized(8, depth=3)").module) == 3
    with pytest.raises(UsageError, match="literal arguments"):
        make_module("factory_models:sized(__import__('os'))")


def test_the_same_text_gives_the_same_weights(here):
    first, again = (make_module("factory_models:plain").module.weight for _ in range(2))
    assert torch.equal(first, again)


def test_making_a_module_leaves_the_random_state_alone(here):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make_module("factory_models:plain")
    assert torch.equal(torch.rand(1), expected)


def test_what_is_found_may_be_anything_and_is_called_anew_each_time(here):
    make = find("factory_models.py:sized(8, depth=2)")
    first, again = make(), make()
    assert first[0] is not again[0]
    assert len(first[0]) == 2
    assert find("factory_models:number")() == 3
    with pytest.raises(RuntimeError, match="no weights"):
        find("factory_models:raising")()
    with pytest.raises(UsageError, match=r"has no 'palin'; did you mean 'plain'"):
        find("factory_models:palin")
    with pytest.raises(UsageError, match=r"expected package\.module:function, got 'plain'"):
        find("plain")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("factory_models:palin", UsageError, "has no 'palin'; did you mean 'plain'"),
        ("factory_modelz:plain", UsageError, "cannot find the Python module 'factory_modelz'"),
        ("absent.py:plain", UsageError, "cannot find the Python file 'absent.py'"),
        ("factory_models:number", UsageError, "expected a function that gives an nn.Module.*got int"),
        ("factory_models:wrong", ModelError, "got a int"),
        ("factory_models:triple", ModelError, "got a tuple of 3"),
        ("factory_models:sized", ModelError, "raised TypeError: .*width"),
        (
            "factory_models:raising",
            ModelError,
            r"raised RuntimeError: no weights here at factory_models.py:\d+",
        ),
        ("broken_models:plain", ModelError, "importing 'broken_models' failed: .*nothing_of_that_name"),
        ("failing_models:plain", ModelError, r"failed: ValueError: at import at failing_models.py:1"),
    ],
)
def test_one_line_says_what_went_wrong(here, text, kind, message):
    with pytest.raises(kind, match=message) as caught:
        load(text, torch.randn(1, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.b:c", True),
        ("x.py:f", True),
        ("C:\\model.onnx", False),
        ("C:model", False),
        ("a.b", False),
        ("a:b-c", False),
    ],
)
def test_what_is_a_factory(text, wanted):
    assert is_factory_text(text) is wanted
