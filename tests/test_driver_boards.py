"""Tuning a model on a board of this machine's kind: the records are the board's, and compile uses them."""

import pytest

import compiler
from compiler.driver_boards import Lab
from compiler.driver_tune import tune
from compiler.schedule.log import read_log
from compiler.schedule.records import identity
from compiler.support.errors import UsageError
from compiler.target import load
from tests import models
from tests.tune.test_boards import Rack


def test_a_model_is_tuned_on_a_board_through_ssh(tmp_path, ssh):
    with Rack() as rack:
        rack.plug_in(1)
        where = str(rack.tracker)
        with pytest.raises(UsageError, match=f"the tracker at {where} knows no board 'host', but 'edge'"):
            tune(*models.tiny(), tracker=where, logs=tmp_path)
        result = tune(
            *models.tiny(), board="edge", tracker=where, ssh="me@lab", logs=tmp_path, name="tiny", trials=12,
            threads=1, builders=1,
        )  # fmt: skip
    assert f":127.0.0.1:{rack.boards[0].port} me@lab" in ssh.read_text()
    assert result.estimated
    assert 0 < result.tuned <= result.untuned
    records = read_log(result.log).records
    assert {record.status for record in records} == {"ok"}
    assert {record.device for record in records} == {identity(load("host"))}
    made = compiler.compile(*models.tiny(), logs=tmp_path, threads=1)
    assert any(kernel.origin == "tuned" for kernel in made.manifest.kernels.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "rpi4"}, r"'rpi4' cannot be tuned here: .*give --tracker HOST:PORT"),
        ({"target": "rpi4", "tracker": "127.0.0.1:1"}, "no tracker answers at 127.0.0.1:1"),
        ({"target": "rpi4", "tracker": "x:y"}, "expected HOST:PORT"),
        (
            {"target": "rpi4", "board": "a", "threads": 5},
            "expected 1 to 4 threads .the cores of 'rpi4'., got 5",
        ),
        ({"workers": "ray://a:1"}, "expected --workers dask://HOST:PORT, got 'ray://a:1'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        tune(*models.tiny(), **{"threads": 1, "trials": 1, "logs": tmp_path, **arguments})


def test_keys_come_from_the_user_the_descriptor_or_the_name():
    assert Lab(board="shed").key(load("rpi4")) == "shed"
    assert Lab(tracker="x").key(load("rpi4")) == "rpi4"
    assert Lab(tracker="x").key(load("host")) == "host"
    assert Lab(tracker="x").threads(load("rpi4"), None) == 4
