import numpy as np
import pytest
import torch
from torch import nn

from compiler.frontend import load
from compiler.frontend.arguments import Arguments, accept_examples, find_varying
from compiler.frontend.input_text import Axis
from compiler.support.errors import UsageError


class Nested(nn.Module):
    def forward(self, pair, options, *rest, scale=None):
        out = pair[0] + pair[1] + options["bias"]
        for each in rest:
            out = out + each
        return out if scale is None else out * scale


def test_example_inputs_as_users_write_them():
    x = torch.ones(2)
    assert accept_examples(x).args == (x,)
    assert accept_examples([x, x]).args == (x, x)
    assert accept_examples({"x": x}).kwargs == {"x": x}
    assert accept_examples(((x,), {"y": x}), nn.ReLU()).args == ((x,), {"y": x})
    both = accept_examples(((x,), {"y": x}))
    assert (both.args, both.kwargs) == ((x,), {"y": x})
    assert isinstance(accept_examples(np.ones(2)).args[0], torch.Tensor)
    nested = accept_examples(({"a": np.ones(2)}, x))
    assert isinstance(nested.args[0]["a"], torch.Tensor)


def test_nested_inputs_keep_their_names():
    x = torch.randn(2, 3)
    model = load(Nested(), (((x, x), {"bias": x}, x), {"scale": x}))
    names = [spec.name for spec in model.signature.inputs]
    assert names == ["pair_0", "pair_1", "options_bias", "rest_0", "scale"]


def test_dimensions_of_nested_inputs_vary():
    x = torch.randn(2, 3)
    model = load(
        Nested(), ((x, x), {"bias": x}), dynamic={"pair": ({0: "N"}, {0: "N"}), "options": {"bias": {0: "N"}}}
    )
    assert [spec.shape for spec in model.signature.inputs] == [("N", 3)] * 3
    assert model.signature.outputs[0].shape == ("N", 3)


def test_keywords_follow_the_order_of_forward():
    class Two(nn.Module):
        def forward(self, first, second):
            return first - second

    model = load(Two(), {"second": torch.ones(2), "first": torch.zeros(2)})
    assert [spec.name for spec in model.signature.inputs] == ["first", "second"]
    assert model.reference(model.examples)[0].tolist() == [-1, -1]


def test_ways_to_name_a_dimension():
    arguments = Arguments((torch.ones(2, 4),), {})
    linear = nn.Linear(4, 2)
    dim = torch.export.Dim("n", min=2, max=9)
    for value, axis in [
        ("N", Axis(1, "N")),
        (("N", 2, 9), Axis(1, "N", 2, 9)),
        (dim, Axis(1, "n", 2, 9)),
        (4 * dim, Axis(4, "n", 2, 9)),
    ]:
        assert find_varying(linear, arguments, {"input": {0: value}}).leaves == ({0: axis},)
        assert find_varying(linear, arguments, {"input": {-2: value}}).leaves == ({0: axis},)
        assert find_varying(linear, arguments, {"input": (value, None)}).leaves == ({0: axis},)


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"inputs": {0: "N"}}, "did you mean 'input'"),
        ({"input": {2: "N"}}, "has 2 dimensions"),
        ({"input": {0: "not a name"}}, "expected a name"),
        ({"input": {0: 3.5}}, "expected a name"),
    ],
)
def test_wrong_dimensions(dynamic, message):
    with pytest.raises(UsageError, match=message):
        load(nn.Linear(4, 2), torch.randn(2, 4), dynamic=dynamic)


def test_a_dimension_with_an_offset_is_refused():
    with pytest.raises(UsageError, match="a multiple of one"):
        load(nn.ReLU(), torch.randn(4), dynamic={"input": {0: torch.export.Dim("n") + 1}})
