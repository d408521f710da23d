import pytest
import torch
from torch import nn

from compiler.frontend.location import locate_node, source_of_error


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return torch.relu(x)


def test_a_node_knows_its_module_and_the_users_line():
    program = torch.export.export(Model(), (torch.randn(1, 4),)).run_decompositions({})
    places = [locate_node(node) for node in program.graph.nodes if node.op == "call_function"]
    linears = [place for place in places if place.kind == "Linear"]
    assert {place.module for place in linears} == {"blocks.0", "blocks.1"}
    assert all("test_location.py:" in place.source for place in places)
    assert str(places[-1]).startswith("the model (Model) at ")


def test_an_exception_is_placed_in_the_users_code():
    with pytest.raises(RuntimeError) as caught:
        Model()(torch.randn(1, 5))
    assert "test_location.py:" in source_of_error(caught.value)


def test_an_exception_without_a_trace_has_no_place():
    assert source_of_error(ValueError("x")) == ""
