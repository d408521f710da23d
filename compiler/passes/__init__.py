"""Graph passes that keep a model's meaning."""

from compiler.passes.pipeline import PassRecord, optimize

__all__ = ["PassRecord", "optimize"]
