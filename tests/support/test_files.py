import os
import stat

import pytest

from compiler.support import files
from compiler.support.errors import UsageError


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a"
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def fails():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_what_cannot_be_written_is_found_early_and_nothing_changes(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    files.check_writable(path)
    assert path.read_text() == "old"
    for wrong in (tmp_path, tmp_path / "none" / "a", path / "below"):
        with pytest.raises(UsageError, match="cannot write"):
            files.check_writable(wrong)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_private_folders_are_private_and_go(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with files.private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "x").write_text("x")
    with files.folder_for_long() as kept:
        pass
    assert list(tmp_path.iterdir()) == [kept]
    files.remove_folder(kept)
    with pytest.raises(KeyError), files.folder_for_long():
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_unfinished_can_be_removed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with files.atomic_path(tmp_path / "a") as temporary, files.private_folder() as folder:
        (folder / "x").write_text("x")
        files.remove_unfinished()
        assert list(tmp_path.iterdir()) == []
        temporary.write_text("again")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_room_on_the_disk(tmp_path):
    files.check_room(tmp_path, 1)
    with pytest.raises(UsageError, match="TMPDIR"):
        files.check_room(tmp_path, 1 << 60)
