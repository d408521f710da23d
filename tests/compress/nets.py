"""Small graphs with layers, and what runs them without any schedule."""

import numpy as np
import tvm
from tvm import relax

from compiler.compress.data import open_data
from compiler.frontend.model import Model
from compiler.support.signature import Signature, TensorSpec
from tests.passes.graphs import const, graph

R = relax.op


def conv(emit, x, inputs, outputs, kernel=3, seed=0, bias=True, **options):
    """Return a convolution, with its bias, of weights that keep the size of what they sum."""
    options = {"padding": kernel // 2} | options
    shape = (outputs, inputs // options.get("groups", 1), kernel, kernel)
    weight = np.random.default_rng(seed + outputs).normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    y = emit(R.nn.conv2d(x, relax.const(weight.astype("float32")), **options))
    return emit(R.add(y, const(1, outputs, 1, 1, seed=seed))) if bias else y


def relu(emit, x):
    return emit(R.nn.relu(x))


def dense(emit, x, inputs, outputs):
    weight = np.random.default_rng(outputs).normal(0, 1 / np.sqrt(inputs), (inputs, outputs))
    product = emit(R.matmul(x, relax.const(weight.astype("float32"))))
    return emit(R.add(product, const(outputs)))


def residual(emit, x):
    """A residual block after a first layer, and a last layer."""
    first = relu(emit, conv(emit, x, 3, 8))
    inner = relu(emit, conv(emit, first, 8, 8, seed=1))
    whole = relu(emit, emit(R.add(conv(emit, inner, 8, 8, seed=2), first)))
    return conv(emit, whole, 8, 4, kernel=1)


def mixed(emit, x):
    """Depthwise, pooling, concatenation, mean, dense: a network as people write them."""
    first = relu(emit, conv(emit, x, 3, 8))
    pooled = emit(R.nn.max_pool2d(first, 2, 2))
    deep = relu(emit, conv(emit, pooled, 8, 8, groups=8))
    joined = emit(R.concat([relu(emit, conv(emit, deep, 8, 8, kernel=1)), pooled], 1))
    mean = emit(R.mean(joined, [2, 3]))
    return dense(emit, mean, 16, 5)


def model(build, **shapes):
    """Return a graph as a model of the inputs `shapes` and the output ``y``."""
    mod = graph(build, **shapes)
    specs = tuple(TensorSpec(name, tuple(shape), "float32") for name, shape in shapes.items())
    fields = list(mod["main"].ret_ty.fields)
    names = ["y", *(f"y{i}" for i in range(1, len(fields)))]
    outputs = tuple(
        TensorSpec(name, tuple(int(dim) for dim in field.shape.values), "float32")
        for name, field in zip(names, fields, strict=True)
    )
    return Model(mod, Signature(specs, outputs), "made up")


def build(mod, signature):
    """Compile a module with TVM's own kernels."""
    del signature
    mod = relax.transform.LegalizeOps()(relax.transform.DecomposeOpsForInference()(mod))
    machine = relax.VirtualMachine(relax.build(mod, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    return lambda arrays: [
        output.numpy() for output in machine["main"](*[tvm.runtime.tensor(array) for array in arrays])
    ]


def samples(count, *shape, seed=5):
    """Return arrays as smooth as pictures are: noise would be no image of what layers see."""
    generator = np.random.default_rng(seed)
    return [
        np.cumsum(generator.standard_normal(shape), -1).astype("float32") / np.float32(np.sqrt(shape[-1]))
        for _ in range(count)
    ]


def data(given, arrays):
    """Return arrays as calibration data of a model."""
    return open_data(arrays, given.signature)
