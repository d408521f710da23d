"""A page about a quantization: one ``.html`` file that holds all it needs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from compiler.compress.report import LayerReport, RangeReport, Report, summarize_storage
from compiler.support import pages


def write_page(report: Report, origin: str, path: Path) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        UsageError: plotly, which draws it, is not installed, or `path` cannot be written.
    """
    pages.require_plotly()
    figures = pages.charts([_sensitivity(report.layers), _histograms(report.ranges)])
    pages.write_page(f"Quantization of {origin}", _sections(report, figures), path)


def _sections(report: Report, figures: Sequence[str]) -> list[str]:
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in report.warnings)
    facts = [
        ("scheme", f"{report.scheme}: {report.description}"),
        ("layers", f"{report.quantized} of {len(report.layers)} quantized"),
        ("data", f"{report.data}, {report.batches} batches, SHA-256 {report.sha256[:16]}"),
        ("ranges", f"by {report.method}"),
        *(("weights", text) for text in summarize_storage(report.layers)),
        *(("score", str(score)) for score in [report.score] if score is not None),
        *(("output", str(output)) for output in report.outputs),
    ]
    kept = [(layer.name, layer.operator, layer.reason) for layer in report.layers if layer.reason]
    kept += [(each.name, each.operator, each.reason) for each in report.floats]
    layers = [
        (
            layer.name, layer.operator, layer.weights, _bits(layer), _decibels(layer.weights_sqnr),
            _decibels(layer.own_sqnr), _decibels(layer.output_sqnr),
        )
        for layer in report.layers
    ]  # fmt: skip
    return [
        warnings,
        pages.table(("", ""), facts),
        *figures,
        "<h2>In float, and why</h2>",
        pages.table(("value", "operator", "why"), kept) if kept else "<p>Nothing.</p>",
        "<h2>Layers</h2>",
        pages.table(
            ("layer", "operator", "weights", "bits", "SQNR of weights", "of its output", "of the network's"),
            layers,
        ),
    ]


def _bits(layer: LayerReport) -> str:
    """Return how many bits a weight has, and how many it takes in a library if these are more."""
    if layer.stored is None or layer.stored == layer.bits:
        return str(layer.bits)
    return f"{layer.bits}, stored in {layer.stored}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def _sensitivity(layers: Sequence[LayerReport]) -> Any:
    """Return the chart of what layers lose when they alone are quantized; None where it was not measured."""
    import plotly.graph_objects as go

    measured = [layer for layer in layers if layer.output_sqnr is not None]
    if not measured:
        return None
    names = [f"{layer.name} (in float)" if layer.reason else layer.name for layer in measured]
    figure = go.Figure(
        [
            go.Bar(x=[layer.own_sqnr for layer in measured], y=names, orientation="h", name="its own output"),
            go.Bar(
                x=[layer.output_sqnr for layer in measured],
                y=names,
                orientation="h",
                name="the network's output",
            ),
        ]
    )
    figure.update_layout(
        title="Each layer quantized alone: SQNR, the lower the more sensitive",
        xaxis_title="signal to quantization noise, dB",
        legend_title="of what",
        yaxis_automargin=True,
        yaxis_autorange="reversed",
        height=200 + 26 * len(measured),
        template="plotly_white",
    )
    return figure


def _histograms(ranges: Sequence[RangeReport]) -> Any:
    """Return the chart of the values that became bytes, one at a time, with their chosen range."""
    import plotly.graph_objects as go

    if not ranges:
        return None
    figure = go.Figure([_bars(each, shown=number == 0) for number, each in enumerate(ranges)])
    buttons = [
        {
            "label": each.name,
            "method": "update",
            "args": [
                {"visible": [other == number for other in range(len(ranges))]},
                {"shapes": _limits(each), "title.text": _title(each)},
            ],
        }
        for number, each in enumerate(ranges)
    ]
    figure.update_layout(
        title=_title(ranges[0]),
        shapes=_limits(ranges[0]),
        updatemenus=[{"buttons": buttons, "x": 1.0, "xanchor": "right", "y": 1.2}],
        yaxis_type="log",
        xaxis_title="value (between the red lines: what codes stand for)",
        yaxis_title="how many on the data",
        bargap=0,
        template="plotly_white",
    )
    return figure


def _bars(each: RangeReport, *, shown: bool) -> Any:
    import plotly.graph_objects as go

    edges = np.linspace(each.low, each.high, len(each.bins) + 1)
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2, y=each.bins, name=each.name, visible=shown, marker_color="#4477aa"
    )


def _limits(each: RangeReport) -> list[dict[str, Any]]:
    """Return lines where the range of the codes begins and ends."""
    return [
        {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "#cc3311"}}
        for x in (each.least, each.most)
    ]


def _title(each: RangeReport) -> str:
    shared = f", a grid of {each.shared} values" if each.shared > 1 else ""
    return (
        f"{each.name}: {each.low:.4g} to {each.high:.4g} seen, codes for {each.least:.4g} to {each.most:.4g} "
        f"in steps of {each.scale:.3g}{shared}"
    )
