"""ONNX files of 8-bit integers, made by ONNX Runtime's own tools.

They lie beside the float file and are made once: another peer that reads ONNX finds them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers.session import Workload, in_order, require
from compiler.target_detect import this_machine

_DOT_PRODUCTS = {"avx512vnni", "avxvnni"}


def static(workload: Workload) -> Path:
    """Return QDQ with scales from the workload's samples: weights int8 per channel, activations uint8."""

    def make(path: Path) -> None:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        quantize_static(
            str(_prepared(workload)),
            str(path),
            _reader(workload),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=_saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _once(workload.folder / "model.static.onnx", make)


def dynamic(workload: Workload) -> Path:
    """Return matrix products with int8 weights per channel and with activations scaled as it runs."""
    return _once(workload.folder / "model.dynamic.onnx", lambda path: _dynamic(_prepared(workload), path))


def dynamic_fused(workload: Workload) -> Path:
    """Return the same after the optimizer for transformers, as ONNX Runtime's makers recommend."""

    def make(path: Path) -> None:
        from onnxruntime.transformers.optimizer import optimize_model

        fused = path.with_name("model.fused.onnx")
        # Zero heads: they are read from the graph.
        optimize_model(str(workload.path("onnx")), "bert", 0, 0, opt_level=0).save_model_to_file(str(fused))
        _dynamic(fused, path)

    return _once(workload.folder / "model.dynamic-fused.onnx", make)


def operators(workload: Workload) -> set[str]:
    """Return the kinds of operators in the float file."""
    import onnx

    graph = onnx.load(str(workload.path("onnx")), load_external_data=False).graph
    return {node.op_type for node in graph.node}


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source), str(target), per_channel=True, reduce_range=_saturates(), weight_type=QuantType.QInt8
    )


def _once(path: Path, make: Callable[[Path], None]) -> Path:
    if not path.exists():
        require("onnxruntime", "onnx")
        make(path)
    return path


def _prepared(workload: Workload) -> Path:
    """Return the float file with shapes inferred and batch norms folded, as quantizing needs it."""

    def make(path: Path) -> None:
        from onnxruntime.quantization import quant_pre_process

        source = str(workload.path("onnx"))
        try:
            quant_pre_process(source, str(path))
        except Exception:  # the symbolic inference does not know every operator
            quant_pre_process(source, str(path), skip_symbolic_shape=True)

    return _once(workload.folder / "model.prepared.onnx", make)


def _reader(workload: Workload) -> Any:
    """Return the samples as the calibrator takes them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    graph = onnx.load(str(workload.path("onnx")), load_external_data=False).graph
    weights = {each.name for each in graph.initializer}
    wanted = [each.name for each in graph.input if each.name not in weights]

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for inputs, _ in workload.samples():
            yield dict(zip(wanted, in_order(inputs, workload.names, wanted), strict=True))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = feeds()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    return Reader()


def _saturates() -> bool:
    """Whether this CPU adds pairs of byte products in 16 bits: weights then need one bit less."""
    machine = this_machine()
    return machine.arch == "x86_64" and not _DOT_PRODUCTS & (machine.features or _DOT_PRODUCTS)
