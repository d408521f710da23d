from collections import OrderedDict, namedtuple

import torch.utils._pytree as pytree

from compiler.frontend.output_tree import name_outputs

Pair = namedtuple("Pair", "left right")


def named(value):
    """Name the outputs of a tree whose ``"t"`` leaves are tensors."""
    leaves, spec = pytree.tree_flatten(value)
    return name_outputs(spec, [leaf == "t" for leaf in leaves], leaves)


def test_sequences_are_numbered():
    assert named("t") == (["output_0"], "*")
    assert named(("t", "t")) == (["output_0", "output_1"], {"tuple": ["*", "*"]})
    assert named(["t", ("t",)]) == (["output_0", "output_1"], ["*", {"tuple": ["*"]}])


def test_keys_and_fields_are_names():
    assert named({"a": "t", "b": ("t", "t")}) == (
        ["a", "b_0", "b_1"],
        {"dict": {"a": "*", "b": {"tuple": ["*", "*"]}}},
    )
    assert named(OrderedDict(z="t", a="t"))[0] == ["z", "a"]
    assert named(Pair("t", "t")) == (["left", "right"], {"tuple": ["*", "*"]})
    assert named({3: "t"}) == (["3"], {"dict": {"3": "*"}})


def test_what_is_no_tensor_stays_in_the_tree():
    assert named(("t", None, 3, {"k": True})) == (
        ["output_0"],
        {"tuple": ["*", None, {"value": 3}, {"dict": {"k": {"value": True}}}]},
    )


def test_names_are_unique():
    names, _ = named({"a": {"b": "t"}, "a_b": "t"})
    assert names == ["a_b", "a_b_1"]
