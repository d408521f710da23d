"""The runtimes that Kiln is measured against, one file each.

Listing them imports none of their packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KILN = "kiln"
"""The name of Kiln's own side of a measurement."""


@dataclass(frozen=True)
class Peer:
    """A runtime: the name used on the command line, its module here, and its title in tables.

    `lacks` says why it cannot compute in a precision that others have.
    """

    name: str
    module: str
    title: str
    lacks: Mapping[str, str] = field(default_factory=dict)


_ALL = (
    Peer(KILN, "kiln", "Kiln"),
    Peer(
        "torch",
        "torch_eager",
        "PyTorch eager",
        {"int8": "PyTorch quantizes for its compiler: see the peer 'inductor'"},
    ),
    Peer("inductor", "torch_inductor", "torch.compile, freezing"),
    Peer(
        "onnxruntime",
        "onnx_runtime",
        "ONNX Runtime",
        {"bf16": "its kernels for x86 CPUs compute in no bfloat16"},
    ),
    Peer("openvino", "openvino_cpu", "OpenVINO"),
    Peer(
        "ncnn",
        "ncnn_cpu",
        "ncnn",
        {"int8": "its quantizers (ncnn2table, ncnn2int8) are not in its Python package"},
    ),
    Peer(
        "mnn",
        "mnn_cpu",
        "MNN",
        {
            "int8": "the quantizer in its Python package (mnnquant) crashes, and 8-bit weights alone are "
            "computed in float",
            "bf16": "its Python package is built without bfloat16 for x86",
        },
    ),
)
RUNTIMES = {peer.name: peer for peer in _ALL}
PEERS = tuple(peer.name for peer in _ALL if peer.name != KILN)
"""Names that ``--against`` takes."""
