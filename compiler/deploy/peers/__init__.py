"""The runtimes that Kiln is measured against, one file each.

Listing them imports none of their packages.
"""

from __future__ import annotations

from dataclasses import dataclass

KILN = "kiln"
"""The name of Kiln's own side of a measurement."""


@dataclass(frozen=True)
class Peer:
    """A runtime: the name used on the command line, its module here, and its title in tables."""

    name: str
    module: str
    title: str


_ALL = (
    Peer(KILN, "kiln", "Kiln"),
    Peer("torch", "torch_eager", "PyTorch eager"),
    Peer("inductor", "torch_inductor", "torch.compile, freezing"),
    Peer("onnxruntime", "onnx_runtime", "ONNX Runtime"),
    Peer("openvino", "openvino_cpu", "OpenVINO"),
    Peer("ncnn", "ncnn_cpu", "ncnn"),
    Peer("mnn", "mnn_cpu", "MNN"),
)
RUNTIMES = {peer.name: peer for peer in _ALL}
PEERS = tuple(peer.name for peer in _ALL if peer.name != KILN)
"""Names that ``--against`` takes."""
