"""A small bundle of made-up parts: no model needs to be compiled to test the container."""

import numpy as np

from compiler.bundle import FORMAT, CheckInfo, KernelInfo, Manifest, PassInfo, TargetInfo, store_golden, write
from compiler.support.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("x", ("N", 3), "float32"), TensorSpec("ids", (2,), "int64")),
    outputs=(TensorSpec("y", ("N",), "float32"), TensorSpec("z", (), "bfloat16")),
    output_tree={"dict": {"y": "*", "more": {"tuple": ["*", None, {"value": 3}]}}},
    dims={"N": (1, None)},
)
LIBRARY_BYTES = bytes(range(256)) * 40


def arrays():
    import ml_dtypes

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    inputs = [x, np.array([4, 5])]
    return inputs, [x.sum(1), np.array(1.5, ml_dtypes.bfloat16)]


def manifest(**changes):
    golden, _ = store_golden(*arrays(), "reference", 1e-4)
    fields = {
        "format": FORMAT,
        "kiln": "0.1.0",
        "tvm": "0.27.0",
        "torch": None,
        "model": "tests:made_up",
        "signature": SIGNATURE,
        "target": TargetInfo(
            name="board",
            kind="cpu",
            triple="x86_64-linux-gnu",
            cpu="x86-64-v2",
            features=("sse4.2",),
            descriptor={"cores": 2, "caches": {"l2": 1024}},
        ),
        "threads": None,
        "alignment": 64,
        "passes": (PassInfo(name="fold", seconds=0.25, summary="4 -> 2 operators"),),
        "kernels": {
            "conv2d_relu": KernelInfo(rule="conv2d", flops=147456.0, bytes=10784),
            "take": KernelInfo(rule="fallback", flops=None, bytes=None),
        },
        "check": CheckInfo(ran="library", error=1e-7, tolerance=1e-4, summary="y: fine"),
        "golden": golden,
        "notes": ("a note",),
        "parts": {},
    }
    return Manifest(**{**fields, **changes})


def contents():
    _, parts = store_golden(*arrays(), "reference", 1e-4)
    return {**parts, "model.so": LIBRARY_BYTES, "sources/kernel.c": b"int main;\n" * 50}


def write_sample(path, **changes):
    """Write the bundle to `path`; return its manifest, parts filled in."""
    return write(path, manifest(**changes), contents())
