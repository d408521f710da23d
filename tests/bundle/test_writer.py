import errno
import os
import zipfile
from pathlib import Path

import pytest

from compiler.bundle import read
from compiler.support.errors import UsageError
from tests.bundle.parts import LIBRARY_BYTES, contents, manifest, write_sample


def test_equal_contents_give_equal_bytes(tmp_path):
    write_sample(tmp_path / "a.kiln")
    library = tmp_path / "library"
    library.write_bytes(LIBRARY_BYTES)
    os.utime(library, (0, 0))
    from compiler.bundle import write

    # The same parts in another order, one of them from a file.
    shuffled = {**dict(reversed(contents().items())), "model.so": library}
    write(tmp_path / "b.kiln", manifest(), shuffled)
    assert (tmp_path / "a.kiln").read_bytes() == (tmp_path / "b.kiln").read_bytes()


def test_any_zip_tool_can_look_inside(tmp_path):
    write_sample(tmp_path / "a.kiln")
    with zipfile.ZipFile(tmp_path / "a.kiln") as archive:
        assert archive.testzip() is None
        assert archive.read("model.so") == LIBRARY_BYTES
        assert archive.namelist()[0] == "manifest.json"


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory"):
        write_sample(tmp_path / "no" / "a.kiln")


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.kiln"
    path.write_bytes(b"old")

    class Full(zipfile.ZipFile):
        def writestr(self, *args, **kwargs):
            if args[0].filename == "model.so":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().writestr(*args, **kwargs)

    monkeypatch.setattr(zipfile, "ZipFile", Full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_sample(path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.kiln"]


def test_a_device_is_not_replaced(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="not an ordinary file"):
        write_sample(fifo)
    assert fifo.is_fifo()
    with pytest.raises(UsageError, match="it is a folder"):
        write_sample(Path(tmp_path))


def test_what_was_written_is_what_is_read(tmp_path):
    written = write_sample(tmp_path / "a.kiln")
    assert read(tmp_path / "a.kiln").manifest == written
