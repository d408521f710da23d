"""Records decide the schedule of the kernel, device and threads that they are of, and of no other."""

import dataclasses

import pytest
import tvm
import tvm_ffi

from compiler.schedule import schedule
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.log import Logged, write_log
from compiler.schedule.records import Record, identity
from compiler.schedule.tuned import device_folder, log_folders, read_tuned, tuned_for, user_folder
from compiler.schedule.workload import workload_of
from compiler.support.errors import UsageError
from compiler.target import load
from tests.tune.faults import kernel, space, trials

THREADS = 2


def _record(place=3, *seconds, **changes):
    """Return a record of other decisions than the default."""
    trial = trials(place + 1)[place]
    made = Record(
        workload=workload_of(kernel()),
        device=identity(load("host")),
        threads=THREADS,
        rule=trial.rule,
        decisions=trial.decisions,
        seconds=seconds or (1e-6,),
    )
    return dataclasses.replace(made, **changes)


def _scheduled(*records):
    mod = tvm.IRModule({"dense": kernel().with_attr("global_symbol", "dense")})
    tuned = tuned_for(load("host"), THREADS, Logged(records))
    found, (said,) = schedule(mod, load("host"), tuned)
    return found["dense"], said.origin


def _decided(place):
    chosen = next(each for number, each in enumerate(space()[1]) if number == place)
    function = kernel().with_attr("global_symbol", "dense")
    return schedule_kernel(function, load("host"), lambda rule, space: chosen)[0]


def test_the_fastest_record_decides():
    function, origin = _scheduled(_record(1, 5e-6), _record(3, 1e-6), _record(2, 3e-6))
    assert origin == "tuned"
    assert not tvm_ffi.structural_equal(function, _decided(0))
    assert tvm_ffi.structural_equal(function, _decided(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"device": identity(dataclasses.replace(load("host"), cores=99))},
        {"threads": 1},
        {"workload": "dense 9x9 -> 9x9 float32 #000000000000"},
        {"rule": "conv2d"},
        {"decisions": {"tile": {"rows": 99, "vectors": 1}, "lanes": 16, "chunk": 1}},
        {"decisions": {"speed": "high"}},
        {"status": "wrong", "seconds": ()},
    ],
)
def test_records_that_do_not_fit_change_nothing(changes):
    function, origin = _scheduled(_record(**changes))
    assert origin == "default"
    assert tvm_ffi.structural_equal(function, _decided(0))


def test_without_logs_all_is_as_it_was():
    function, origin = _scheduled()
    assert origin == "default"
    assert tvm_ffi.structural_equal(function, _decided(0))


def test_logs_are_found_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    host, more = load("host"), tmp_path / "more.jsonl"
    own = user_folder() / device_folder(host)
    assert own.parts[-4:] == ("home", "kiln", "tuning_logs", host.cpu)
    assert device_folder(load("rpi4")) == "rpi4"
    assert own not in log_folders(host)
    own.mkdir(parents=True)
    write_log(own / "net.jsonl", [_record(1, 2e-6)])
    write_log(more, [_record(2, 1e-6)])
    with more.open("a") as stream:
        stream.write("nonsense\n")
    workload = workload_of(kernel())
    tuned, logged = read_tuned(host, THREADS)
    assert tuned.records[workload] == _record(1, 2e-6)
    tuned, logged = read_tuned(host, THREADS, [more])
    assert tuned.records[workload] == _record(2, 1e-6)
    assert [each.line for each in logged.problems] == [2]
    with pytest.raises(UsageError, match=r"cannot read the tuning log '.*none\.jsonl'"):
        read_tuned(host, THREADS, [tmp_path / "none.jsonl"])
