import pytest
import tvm
from tvm import relax

from compiler.passes import optimize
from compiler.target import load
from tests.passes.graphs import const, graph, operators

R = relax.op


def _after(build, target, **shapes):
    mod, records = optimize(graph(build, **shapes), load(target))
    assert all(record.seconds >= 0 and "operators" in record.summary for record in records)
    return operators(mod)


@pytest.mark.parametrize("target", ["x86-64-v3", "rpi4", "rtx-4090", "mali-g610"])
@pytest.mark.parametrize(
    ("build", "lowered"),
    [
        (lambda emit, x: R.cumsum(x, 1), "cumsum"),
        (lambda emit, x: R.sort(x, 1), "sort"),
        (lambda emit, x: R.nn.softmax(x), "nn.softmax"),
        (lambda emit, x: R.nn.group_norm(x, const(4), const(4), 2, 1, [2]), "nn.group_norm"),
    ],
)
def test_no_operator_is_left_for_the_build(build, lowered, target):
    """TVM lowers sorts and scans in a pass of their own, apart from all other operators."""
    mod, _ = optimize(graph(build, x=(2, 4, 5)), load(target))
    calls = [b.value for block in mod["main"].body.blocks for b in block.bindings]
    names = [call.op.name for call in calls if isinstance(getattr(call, "op", None), tvm.ir.Op)]
    assert names
    assert f"relax.{lowered}" not in names


def test_an_epilogue_joins_its_convolution():
    weight, bias = const(8, 8, 3, 3), const(1, 8, 1, 1)

    def build(emit, x):
        y = emit(R.add(emit(R.nn.conv2d(x, weight, padding=(1, 1))), bias))
        return R.nn.relu(emit(R.add(y, x)))

    assert _after(build, "x86-64-v3", x=(1, 8, 6, 6)) == ["pack", "fused_conv2d_add_add1_relu", "unpack"]
