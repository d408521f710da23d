"""Graph passes that keep a model's meaning."""

from compiler.passes.pipeline import PassRecord, canonicalize, optimize
from compiler.passes.quantized_layers import is_quantized

__all__ = ["PassRecord", "canonicalize", "is_quantized", "optimize"]
