"""Tests; the folders mirror compiler/."""
