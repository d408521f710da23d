"""What is quantized, what becomes bytes, which values share a grid, and what stays in float."""

import pytest
from tvm import relax

from compiler.compress.plan import Structure
from compiler.frontend.layer_names import LayerName
from compiler.ir.graph import Graph
from tests.compress.nets import conv, dense, mixed, relu, residual
from tests.passes.graphs import const, graph

R = relax.op


def _planned(build, reasons=(), names=(), **shapes):
    structure = Structure(Graph(graph(build, **shapes)), names)
    return structure, structure.plan(dict.fromkeys(reasons, "a reason"))


def _bytes(structure, plan):
    return [structure.names[var] for var in plan.bytes]


def test_a_residual_block_is_bytes_from_the_first_to_the_last_layer():
    structure, plan = _planned(residual, x=(1, 3, 8, 8))
    assert [layer.name for layer in plan.layers] == ["conv2d_0", "conv2d_1", "conv2d_2", "conv2d_3"]
    assert _bytes(structure, plan) == ["x", "conv2d_0", "conv2d_1", "conv2d_2"]
    assert not plan.floats
    assert [layer.name for layer in structure.first] == ["conv2d_0"]
    assert [layer.name for layer in structure.last] == ["conv2d_3"]


def test_moved_bytes_and_the_parts_of_a_concatenation_share_a_grid():
    structure, plan = _planned(mixed, x=(1, 3, 8, 8))
    grids = {structure.names[var]: structure.names[stands] for var, stands in plan.bytes.items()}
    assert grids["conv2d_0"] == grids["max_pool2d_0"] == grids["conv2d_2"] == grids["concat_0"]
    assert len({grids[name] for name in ("x", "conv2d_0", "conv2d_1", "mean_0")}) == 4
    observed = {structure.names[var] for values in plan.observed.values() for var in values}
    assert observed == {"x", "conv2d_0", "conv2d_1", "conv2d_2", "mean_0"}


def test_of_two_added_layers_the_other_one_is_rounded():
    def build(emit, x):
        both = emit(R.add(conv(emit, x, 3, 8), conv(emit, x, 3, 8, kernel=1)))
        return conv(emit, relu(emit, both), 8, 4)

    structure, plan = _planned(build, x=(1, 3, 8, 8))
    # The first one's sum goes on in registers; what it gives is the sum of both.
    assert _bytes(structure, plan) == ["x", "conv2d_1", "conv2d_0"]
    assert [layer.name for layer in structure.last] == ["conv2d_2"]


def test_a_layer_in_float_leaves_in_float_what_only_it_reads():
    structure, plan = _planned(residual, ["conv2d_1"], x=(1, 3, 8, 8))
    assert [layer.name for layer in plan.layers] == ["conv2d_0", "conv2d_2", "conv2d_3"]
    # conv2d_0 is added to what conv2d_3 reads.
    assert _bytes(structure, plan) == ["x", "conv2d_0", "conv2d_1", "conv2d_2"]
    structure, plan = _planned(residual, ["conv2d_2", "conv2d_3"], x=(1, 3, 8, 8))
    assert _bytes(structure, plan) == ["x", "conv2d_0"]
    assert [(each.name, each.reason) for each in plan.floats] == [
        ("conv2d_2", "a reason"),
        ("conv2d_3", "a reason"),
    ]


def test_gates_stay_in_float():
    def build(emit, x):
        y = relu(emit, conv(emit, x, 3, 8))
        gate = emit(R.sigmoid(conv(emit, emit(R.mean(y, [2, 3], keepdims=True)), 8, 8, kernel=1)))
        return conv(emit, emit(R.multiply(y, gate)), 8, 4)

    structure, plan = _planned(build, x=(1, 3, 8, 8))
    # The gate and the product are one kernel, called by its layer.
    assert _bytes(structure, plan) == ["x", "conv2d_0", "mean_0", "conv2d_1"]


def test_norms_and_products_of_activations_stay_in_float_and_are_told():
    def build(emit, x):
        y = dense(emit, x, 6, 6)
        scores = emit(R.nn.softmax(emit(R.matmul(y, emit(R.permute_dims(y, [1, 0]))))))
        normed = emit(R.nn.layer_norm(emit(R.matmul(scores, y)), const(6), const(6), -1))
        return dense(emit, normed, 6, 4)

    structure, plan = _planned(build, x=(5, 6))
    assert _bytes(structure, plan) == ["x", "layer_norm_0"]
    assert {(each.operator, each.reason) for each in plan.floats} == {
        ("permute_dims", "nothing that reads it works on bytes"),
        ("matmul", "it multiplies two activations"),
        ("softmax", "it has no integer form"),
        ("layer_norm", "it has no integer form"),
    }


def test_a_sum_that_only_norms_read_stays_in_float():
    """The stream of a transformer with norms before its layers, where rounding errors would add up."""

    def build(emit, x):
        def block(x):
            return emit(R.add(dense(emit, emit(R.nn.layer_norm(x, const(6), const(6), -1)), 6, 6), x))

        return R.nn.layer_norm(block(block(x)), const(6), const(6), -1)

    structure, plan = _planned(build, x=(5, 6))
    assert _bytes(structure, plan) == ["layer_norm_0", "layer_norm_1"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([LayerName("a", True), LayerName("b", False)], ["a", "b"]),
        ([LayerName("b", False), LayerName("a", True)], ["conv2d_0", "matmul_0"]),
        ([LayerName("a", True)], ["conv2d_0", "matmul_0"]),
    ],
)
def test_layers_take_the_names_that_fit(names, expected):
    def build(emit, x):
        return dense(emit, emit(R.reshape(conv(emit, x, 3, 2), (1, 128))), 128, 4)

    structure, _ = _planned(build, names=names, x=(1, 3, 8, 8))
    assert [layer.name for layer in structure.layers] == expected


def test_values_of_other_types_are_not_quantized():
    def build(emit, x):
        wide = emit(R.astype(x, "float64"))
        return R.add(wide, relax.const(1.0, "float64"))

    _, plan = _planned(build, x=(2, 3))
    assert not plan.bytes
