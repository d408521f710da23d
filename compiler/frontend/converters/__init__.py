"""Kiln's converters from ATen operators to Relax.

Use::

    program = torch.export.export(module, args).run_decompositions(decomposition_table())
    refused = {node.target.__name__ for node in calls(program)} - CONVERTERS.keys()
    from_exported_program(program, custom_convert_map=CONVERTERS, run_ep_decomposition=False)

`CONVERTERS` is complete: what is not in it must not be left to TVM's importer, whose other converters
were not checked or are known to be wrong. `REFUSED` says, for operators that cannot be supported, what
to do instead. `freeze_fake_quantize` and `without_quantized_modules` go over a module before export.
"""

from __future__ import annotations

# Importing a family registers its converters.
from compiler.frontend.converters import (  # noqa: F401
    activations,
    attention,
    complex_numbers,
    convolution,
    creation,
    elementwise,
    indexing,
    linear_algebra,
    logic,
    normalization,
    pooling,
    quantized,
    reductions,
    resizing,
    shapes,
    sizes,
)
from compiler.frontend.converters.decompositions import decomposition_table
from compiler.frontend.converters.eager_quantized import without_quantized_modules
from compiler.frontend.converters.fake_quantize import freeze_fake_quantize
from compiler.frontend.converters.refused import REFUSED
from compiler.frontend.converters.registry import REGISTRY as CONVERTERS

__all__ = [
    "CONVERTERS",
    "REFUSED",
    "decomposition_table",
    "freeze_fake_quantize",
    "without_quantized_modules",
]
