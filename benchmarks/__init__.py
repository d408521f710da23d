"""Kiln against its peers on a table of models: `make bench`."""
