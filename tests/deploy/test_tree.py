from compiler.deploy.tree import nest


def test_one_tensor_stays_one():
    assert nest("*", [1]) == 1


def test_everything_that_a_tree_can_hold():
    tree = {"dict": {"a": "*", "b": {"tuple": ["*", None, {"value": "x"}]}, "c": ["*", []]}}
    assert nest(tree, [1, 2, 3]) == {"a": 1, "b": (2, None, "x"), "c": [3, []]}
