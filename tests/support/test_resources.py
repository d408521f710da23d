"""Shipped data is found, and its absence is told."""

import pytest

from compiler.support import resources
from compiler.support.errors import InternalError
from compiler.support.resources import data_folder


def test_both_folders_are_found():
    assert (data_folder("targets") / "rpi4.yaml").is_file()
    assert data_folder("tuning_logs").is_dir()


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    inside = tmp_path / "compiler" / "_data" / "targets"
    inside.mkdir(parents=True)
    (tmp_path / "targets").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "compiler")
    assert data_folder("targets") == inside
    with pytest.raises(InternalError, match="install kiln-compiler again"):
        data_folder("tuning_logs")
