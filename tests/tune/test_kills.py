"""Kills at any moment lose no record, repeat no trial and leave no process."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from compiler.schedule.log import Log, read_log
from compiler.schedule.records import AGAIN
from compiler.tune.session import Session, begin_or_resume, end
from compiler.tune.tuner import Facts, Tuner, recall
from tests.tune.made_up import DEVICE, Formula, task
from tests.tune.test_tuner import Heard

ROOT = Path(__file__).parent.parent.parent
TRIALS = 200

PROCESSES = multiprocessing.get_context("forkserver")
"""Children of a process that has imported everything: to import takes longer than all the rest."""
PROCESSES.set_forkserver_preload([__name__])


class Slow(Formula):
    def measure(self, trials, best):
        for each in super().measure(trials, best):
            time.sleep(0.01)
            yield each


def tune(folder):
    """Tune two made-up tasks, or go on with it."""
    os.chdir(folder)
    path, tasks = Path("net.jsonl"), [task("a #1", rows=28), task("b #2", calls=3, rows=28)]
    session = begin_or_resume(path, None, Session("", trials=TRIALS))
    facts = Facts(DEVICE, 2, "a CPU", "0", "0", session.name)
    with Log(path) as log:
        trials, spent = recall(tasks, read_log(path).records, facts)
        numbers = {each: number for number, each in enumerate(tasks)}
        tuner = Tuner(tasks, numbers, Slow(), log, facts, session.budget(spent), Heard(), trials, spent)
        tuner.run()
    end(path)


def tuning(folder):
    process = PROCESSES.Process(target=tune, args=(folder,))
    process.start()
    return process


WORKERS = """
import time
from compiler.target import load
from compiler.tune.workers import Workers
from tests.tune import faults
if __name__ == "__main__":
    workers = Workers(2, load("host"), faults.tools(), 1)
    workers.add(faults.as_kernel())
    list(workers.measure(faults.trials(3), lambda kernel: float("inf")))
    print("measured", flush=True)
    time.sleep(1000)
"""


def test_ten_kills_lose_nothing(tmp_path):
    path, waits = tmp_path / "net.jsonl", random.Random()
    kills = 0
    while kills < 10:
        before = path.read_bytes() if path.exists() else b""
        process = tuning(tmp_path)
        # Until something was recorded, then a little longer; some are killed before that, too.
        limit = time.monotonic() + waits.uniform(1, 10)
        while time.monotonic() < limit and (path.read_bytes() if path.exists() else b"") == before:
            time.sleep(0.005)
        time.sleep(waits.uniform(0, 0.15))
        assert process.exitcode is None, "it ended before it was killed often enough"
        process.kill()
        process.join()
        kills += 1
        kept = path.read_bytes() if path.exists() else b""
        assert kept.startswith(before), "a log is appended to, and nothing else"
    last = tuning(tmp_path)
    last.join()
    assert last.exitcode == 0
    logged = read_log(path)
    assert not logged.problems
    searched = [record.trial for record in logged.records if record.note != AGAIN]
    assert len(searched) == len(set(searched)), "a trial was measured twice"
    assert len(searched) == TRIALS, "the budget was not that of one session"
    assert len({record.session for record in logged.records}) == 1
    spent = [record.spent for record in logged.records]
    assert spent == sorted(spent)
    assert not list(tmp_path.glob("*.session"))


def test_workers_end_with_who_started_them(tmp_path):
    (tmp_path / "session.py").write_text(WORKERS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "session.py"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "measured\n"
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_a_session_keeps_its_name_and_its_limits(tmp_path):
    path, default = tmp_path / "deep" / "net.jsonl", Session("", seconds=1200.0)
    first = begin_or_resume(path, None, default)
    assert (first.trials, first.seconds) == (None, 1200.0)
    assert begin_or_resume(path, None, Session("", trials=3)) == first
    changed = begin_or_resume(path, Session("", trials=50), default)
    assert (changed.name, changed.trials, changed.seconds) == (first.name, 50, None)
    assert begin_or_resume(path, None, default) == changed
    end(path)
    end(path)
    assert begin_or_resume(path, None, default).name != first.name


def test_a_session_that_cannot_be_read_is_none(tmp_path):
    path = tmp_path / "net.jsonl"
    first = begin_or_resume(path, None, Session("", trials=5))
    path.with_name("net.jsonl.session").write_text("{")
    again = begin_or_resume(path, None, Session("", trials=7))
    assert again.name != first.name
    assert again.trials == 7


def test_a_session_ends_by_the_clock():
    ends = Session("", ends=time.time() + 100)
    assert 149 < ends.budget(50.0).seconds <= 150
    assert Session("", seconds=70.0, ends=time.time() + 100).budget(50.0).seconds == 70
    assert Session("", ends=time.time() - 5).budget(50.0).is_spent(0, 50.1)
