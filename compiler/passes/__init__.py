"""Graph passes that keep a model's meaning."""

from compiler.passes.pipeline import PassRecord, canonicalize, optimize

__all__ = ["PassRecord", "canonicalize", "optimize"]
