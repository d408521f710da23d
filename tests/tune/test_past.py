"""What other kernels and other devices teach: where to begin, and nothing that is taken for measured here."""

import dataclasses
import math

import numpy as np
import pytest

from compiler.schedule.log import Log, read_log
from compiler.schedule.records import AGAIN, Record, best
from compiler.schedule.space import to_plain
from compiler.tune.budget import Budget
from compiler.tune.model import CostModel
from compiler.tune.past import Lesson, past_of
from compiler.tune.propose import propose
from compiler.tune.tuner import Facts, Tuner, recall
from tests.tune.made_up import DEVICE, Formula, seconds, task
from tests.tune.test_tuner import Heard

OTHER = "x86_64-linux-other-4c#1"
FACTS = Facts(DEVICE, 2, "a CPU", "0", "0", "session")


def records(given, device=DEVICE, threads=2, factor=1.0, count=60):
    """Return records of some decisions of a task, as the formula has them; the default among them."""
    every = [to_plain(each) for each in given.space]
    chosen = [every[0], *(every[place] for place in np.random.default_rng(1).permutation(len(every))[:count])]
    return [
        Record(
            workload=given.workload, device=device, threads=threads, rule=given.rule, decisions=plain,
            seconds=(factor * seconds(plain),), default=plain == every[0],
        )
        for plain in chosen
    ]  # fmt: skip


def run(given, past, tmp_path, trials):
    measures, heard = Formula(), Heard()
    with Log(tmp_path / "log.jsonl") as log:
        Tuner([given], {given: 0}, measures, log, FACTS, Budget(trials), heard, past=past).run()
    return measures, heard, read_log(log.path).records


def test_the_best_elsewhere_is_tried_right_after_the_default(tmp_path):
    given = task()
    there = records(given, OTHER, factor=7.0)
    past = past_of([given], [], there, DEVICE, 2)
    measures, heard, logged = run(given, past, tmp_path, 4)
    fastest = sorted({each.time: each.decisions for each in there if not each.default}.items())[:3]
    assert [trial.decisions for trial in measures.asked[:4]] == [
        given.plain_default,
        *(plain for _, plain in fastest),
    ]
    assert list(heard.phases)[:2] == ["defaults", "known"]
    assert {record.device for record in logged} == {DEVICE}
    assert all(record.key[1] == DEVICE for record in given.records.values())


def test_the_best_of_an_earlier_session_that_lost_is_given_up(tmp_path):
    """Its times were those of a lucky day; the default is faster, and that has to be in the log."""
    given = task()
    slowest = max(map(to_plain, given.space), key=seconds)
    lucky = dataclasses.replace(
        records(given)[0], decisions=slowest, default=False, seconds=(1e-9,), note=AGAIN, session="lucky",
        at="2026-01-01",
    )  # fmt: skip
    past = past_of([given], [lucky], [], DEVICE, 2, FACTS.session)
    assert past.hints == {given.workload: [slowest]}
    _measures, _heard, logged = run(given, past, tmp_path, 2)
    assert best([lucky, *logged])[given.workload, DEVICE, 2].decisions == given.plain_default


def test_hints_are_not_measured_beyond_the_budget(tmp_path):
    given = task()
    past = past_of([given], [], records(given, OTHER), DEVICE, 2)
    measures, heard, _ = run(given, past, tmp_path, 2)
    assert heard.phases["search"] == 2
    assert len({str(trial.decisions) for trial in measures.asked}) == 2


def test_hints_that_are_not_legal_here_are_left_out():
    given = task(rows=4)
    there = records(task(rows=28), OTHER)
    hints = past_of([given], [], there, DEVICE, 2).hints[given.workload]
    assert hints
    assert all(plain["tile"]["rows"] <= 4 for plain in hints)


def test_other_threads_of_this_device_give_hints_and_other_devices_none():
    given = task()
    assert past_of([given], records(given, threads=1), [], DEVICE, 2).hints
    assert not past_of([given], records(given, OTHER), [], DEVICE, 2).hints
    earlier = past_of([given], records(given), [], DEVICE, 2, "now")
    assert earlier.hints
    assert len(earlier.lessons["conv2d"]) == 1
    now = [dataclasses.replace(each, session="now") for each in records(given)]
    own = past_of([given], now, [], DEVICE, 2, "now")
    assert not own.hints, "the task holds these itself"
    assert not own.lessons["conv2d"]


def test_sessions_are_ranked_each_on_its_own():
    """All times of a bad day are longer than those of a good one: no reason to think ill of its decisions."""
    given = task()
    days = [
        *(dataclasses.replace(each, session="good") for each in records(given)),
        *(dataclasses.replace(each, session="bad") for each in records(given, factor=2.0)[:30]),
    ]
    lessons = past_of([given], days, [], DEVICE, 2, "now").lessons["conv2d"]
    assert [len({each.session for each in lesson.records}) for lesson in lessons] == [1, 1]


@pytest.mark.parametrize("device", [DEVICE, OTHER])
def test_the_first_batch_is_better_for_what_another_kernel_taught(device):
    def middle(lessons):
        given, model = task(rows=28), CostModel()
        model.learn([given], lessons)
        generator = np.random.default_rng(3)
        chosen = propose(given, model, 17, generator)[1:]
        return float(np.median([seconds(plain) for plain in chosen]))

    other = task("conv2d 1x9 -> 1x9 float32 #2", rows=28)
    there = records(other, device, factor=3.0, count=200)
    own, similar = (there, []) if device == DEVICE else ([], there)
    past = past_of([task(rows=28)], own, similar, DEVICE, 2)
    assert middle(past.lessons["conv2d"]) < 0.6 * middle([])


def test_what_is_measured_here_is_learned_in_time():
    given, model = task(rows=28), CostModel()
    wrong = [
        dataclasses.replace(each, seconds=(1e-6 / each.time,)) for each in records(given, OTHER, count=200)
    ]
    lessons = past_of([given], [], wrong, DEVICE, 2).lessons["conv2d"]
    for each in records(given, count=100):
        given.take(each)
    model.learn([given], lessons)
    every = [to_plain(each) for each in given.space]
    order = np.argsort(-model.scores(given, every))[:20]
    assert np.median([seconds(every[place]) for place in order]) < np.median(
        [seconds(each) for each in every]
    )


def test_records_of_decisions_that_another_kiln_had_are_no_lesson():
    given, model = task(), CostModel()
    strange = [
        dataclasses.replace(each, decisions={"speed": number})
        for number, each in enumerate(records(given, OTHER))
    ]
    words = [dataclasses.replace(each, decisions={"trace": "text"}) for each in records(given, OTHER)]
    model.learn([given], [Lesson("w", 0.0, math.nan, [*strange, *words])])
    assert not model.knows


def test_learning_from_many_records_is_bounded():
    given = task(rows=28)
    works = [task(f"conv2d 1x{n} -> 1x{n} float32 #{n}", rows=28) for n in range(40)]
    many = [each for work in works for each in records(work, count=400)]
    lessons = past_of([given], many, [], DEVICE, 2).lessons["conv2d"]
    assert 0 < sum(len(lesson.records) for lesson in lessons) <= 2048
    times = sorted(each.time for each in lessons[0].records)
    assert times[-1] > 2 * times[0], "slow ones, too"


def test_recalled_are_only_decisions_that_are_still_legal():
    given, known = task(rows=4), records(task(rows=28))
    others = [dataclasses.replace(each, session="yesterday") for each in known]
    assert recall([given], others, FACTS) == (0, 0.0)
    assert not given.records
    assert given.before == given.tried != set()
    known = [dataclasses.replace(each, session=FACTS.session) for each in known]
    recall([given], known, FACTS)
    assert given.first is not None
    assert {each.decisions["tile"]["rows"] for each in given.records.values()} <= {1, 2, 3, 4}
    strange = dataclasses.replace(known[1], rule="matmul", seconds=(1e-9,))
    recall([given], [strange], FACTS)
    assert given.time > 1e-9
