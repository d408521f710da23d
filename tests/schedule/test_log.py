"""Logs lose nothing: not by kills, full disks, foreign lines or two writers."""

import dataclasses
import errno
import os

import pytest

from compiler.schedule.log import Log, read_log, read_logs, write_log
from compiler.support.errors import UsageError
from tests.schedule.test_records import RECORD


def _records(count):
    return [dataclasses.replace(RECORD, seconds=(float(number + 1),)) for number in range(count)]


def test_what_is_appended_is_there_at_once(tmp_path):
    path, records = tmp_path / "deep" / "net.jsonl", _records(3)
    with Log(path) as log:
        for number, record in enumerate(records, 1):
            log.append(record)
            assert list(read_log(path).records) == records[:number]
    with Log(path) as log:
        log.append(records[0])
    assert list(read_log(path).records) == [*records, records[0]]


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_cut_off_by_a_kill_harms_no_other(tmp_path, cut):
    path, records = tmp_path / "net.jsonl", _records(3)
    write_log(path, records[:2])
    path.write_bytes(path.read_bytes()[:-cut])
    with Log(path) as log:
        log.append(records[2])
    found = read_log(path)
    if cut == 1:  # nothing but the end of the line
        assert list(found.records) == records
        assert not found.problems
    else:
        assert list(found.records) == [records[0], records[2]]
        assert [str(each) for each in found.problems] == [
            f"{path}, line 2: it is no JSON: cut off, or of something else; skipped"
        ]


def test_foreign_lines_are_skipped_and_said(tmp_path):
    path = tmp_path / "net.jsonl"
    write_log(path, _records(1))
    with path.open("ab") as stream:
        stream.write(b'\n\xff\xfe\n{"a": 1}\n')
    write_log(tmp_path / "other.jsonl", _records(2))
    (tmp_path / "notes.txt").write_text("no log")
    found = read_logs([tmp_path])
    assert len(found.records) == 3
    assert [(each.path.name, each.line) for each in found.problems] == [("net.jsonl", 3), ("net.jsonl", 4)]


def test_two_writers_are_one_too_many(tmp_path):
    path = tmp_path / "net.jsonl"
    with Log(path), pytest.raises(UsageError, match=r"another kiln is writing '.*net\.jsonl': wait for it"):
        Log(path)
    Log(path).close()


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path, (first, second) = tmp_path / "net.jsonl", _records(2)
    write = os.write
    with Log(path) as log:
        log.append(first)
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
        with pytest.raises(UsageError, match=r"cannot write the tuning log .*No space left.*before is safe"):
            log.append(second)
        monkeypatch.undo()
        log.append(second)
    assert list(read_log(path).records) == [first, second]
    assert not read_log(path).problems


def test_folders_that_cannot_be_written_and_files_that_cannot_be_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write the tuning log"):
        Log(tmp_path / "file" / "net.jsonl")
    with pytest.raises(UsageError, match=f"cannot read the tuning log .*{os.strerror(errno.ENOENT)}"):
        read_log(tmp_path / "none.jsonl")
