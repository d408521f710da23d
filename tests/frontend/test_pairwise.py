import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax
from tvm.script import relax as R

from compiler.frontend import load
from compiler.frontend.pairwise import pairwise
from tests.frontend.helpers import execute


def test_what_is_stacked_is_compared_pairwise():
    @tvm.script.ir_module
    class Before:
        @R.function
        def main(a: R.Tensor((3, 4)), b: R.Tensor((3, 4)), c: R.Tensor((3, 4))):
            with R.dataflow():
                lv = R.stack((a, b, c), axis=0)
                out = R.min(lv, axis=[0])
                R.output(out)
            return out

    @tvm.script.ir_module
    class After:
        @R.function
        def main(a: R.Tensor((3, 4)), b: R.Tensor((3, 4)), c: R.Tensor((3, 4))):
            with R.dataflow():
                lv = R.minimum(a, b)
                out = R.minimum(lv, c)
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(pairwise(Before), relax.transform.Normalize()(After))


def test_other_reductions_stay():
    @tvm.script.ir_module
    class Stays:
        @R.function
        def main(a: R.Tensor((3, 4)), b: R.Tensor((3, 4))):
            with R.dataflow():
                lv = R.stack((a, b), axis=0)
                lv1 = R.stack((a, b), axis=1)
                out = (R.min(lv, axis=[1]), R.max(lv1, axis=[0]), R.min(a, axis=[0]), R.sum(lv, axis=[0]))
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(pairwise(Stays), relax.transform.Normalize()(Stays))


def test_operands_of_an_onnx_node_broadcast(tmp_path):
    nodes = [
        helper.make_node("Min", ["x", "row"], ["low"]),
        helper.make_node("Max", ["low", "x", "one"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.linspace(-1, 1, 4, dtype="float32"), "row"),
               numpy_helper.from_array(np.float32(0.1), "one")]  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], tensors),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    onnx.save(model, tmp_path / "model.onnx")
    mod = load(tmp_path / "model.onnx").mod
    assert "stack" not in mod.script()
    x = np.random.default_rng().normal(size=(3, 4)).astype("float32")
    row = np.linspace(-1, 1, 4, dtype="float32")
    expected = np.maximum(np.maximum(np.minimum(x, row), x), np.float32(0.1))
    np.testing.assert_array_equal(execute(mod, [x])[0], expected)
