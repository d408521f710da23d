"""Signatures of models that the tests of calibration data share."""

from compiler.support.signature import Signature, TensorSpec

IMAGE = Signature((TensorSpec("x", (1, 3, 4, 4), "float32"),), (TensorSpec("y", (1, 10), "float32"),))
EIGHT = Signature((TensorSpec("x", (8, 3), "float32"),), (TensorSpec("y", (8, 2), "float32"),))
MANY = Signature(
    (TensorSpec("x", ("N", 3), "float32"),), (TensorSpec("y", ("N", 2), "float32"),), dims={"N": (1, 64)}
)
TEXT = Signature(
    (TensorSpec("ids", (1, "S"), "int64"), TensorSpec("mask", (1, "S"), "int64")),
    (TensorSpec("y", (1, "S", 8), "float32"),),
    dims={"S": (1, 16)},
)
STEP = Signature(
    (TensorSpec("x", (1, 4), "float32"), TensorSpec("t", (), "int32"), TensorSpec("on", (1,), "bool")),
    (TensorSpec("y", (1, 4), "float32"),),
)
