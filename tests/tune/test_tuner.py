"""The search finds what is best, records all it tried, and goes on where a kill left it."""

import dataclasses

import pytest

from compiler.schedule.log import Log, read_log
from compiler.schedule.records import best
from compiler.tune.budget import Budget
from compiler.tune.tuner import Facts, Tuner
from tests.tune.made_up import DEVICE, Formula, seconds, task

FACTS = Facts(DEVICE, 2, "a CPU", "0", "0", "session")


class Heard:
    def __init__(self):
        self.phases, self.records = {}, []

    def started(self, tuner):
        self.tuner = tuner

    def phase(self, name):
        self.phases[name] = len(self.records)

    def saw(self, task, record):
        self.records.append(record)


def tuner(tasks, log, measures, budget, **options):
    return Tuner(
        tasks, {each: n for n, each in enumerate(tasks)}, measures, log, FACTS, budget, Heard(), **options
    )


def least(given):
    return min(seconds(dataclasses.asdict(each)) for each in given.space)


def test_it_finds_the_best_with_a_fraction_of_the_trials(tmp_path):
    given, measures = task(rows=28, chunks=(1, 2, 4, 8, 16, 32)), Formula()
    with Log(tmp_path / "log.jsonl") as log:
        made = tuner([given], log, measures, Budget(trials=160))
        made.run()
    assert list(made.listener.phases) == ["defaults", "search", "leaders"]
    assert made.listener.phases["leaders"] <= 160
    assert given.space.size == 672
    assert given.time < 1.1 * least(given) * 1.01
    assert given.first.default
    assert given.first.decisions == given.plain_default
    searched = [trial.decisions for trial in measures.asked[: made.listener.phases["leaders"]]]
    assert all(searched.count(each) == 1 for each in searched), "no trial twice"


def test_all_is_recorded_as_it_is_measured(tmp_path):
    path = tmp_path / "log.jsonl"
    given = [task("a #1"), task("b #2", calls=3)]
    with Log(path) as log:
        made = tuner(given, log, Formula(), Budget(trials=60))
        made.run()
    records = read_log(path).records
    assert list(records) == made.listener.records
    assert {record.workload for record in records} == {"a #1", "b #2"}
    assert {record.session for record in records} == {"session"}
    assert [record.spent for record in records] == sorted(record.spent for record in records)
    found = best(records)
    for each in given:
        assert found[each.workload, DEVICE, 2].trial == each.best.trial
    assert made.network == pytest.approx(sum(each.calls * each.time for each in given))


def test_what_was_tried_is_not_tried_again(tmp_path):
    path = tmp_path / "log.jsonl"
    first, measures = task(), Formula()
    with Log(path) as log:
        tuner([first], log, measures, Budget(trials=40)).run()
    again, later = task(), Formula()
    for record in read_log(path).records:
        again.take(record)
    assert again.best.trial == first.best.trial
    with Log(path) as log:
        tuner([again], log, later, Budget(trials=80), trials=40, spent=1.0).run()
    before = [trial.decisions for trial in measures.asked[:40]]
    after = [trial.decisions for trial in later.asked[:40]]
    assert not [each for each in after if each in before]


def test_trials_go_where_the_time_goes(tmp_path):
    heavy, light = task("heavy #1", calls=50), task("light #2")
    with Log(tmp_path / "log.jsonl") as log:
        tuner([light, heavy], log, Formula(), Budget(trials=200)).run()
    assert len(heavy.records) > 2 * len(light.records)


def test_it_ends_when_there_is_nothing_left_to_try(tmp_path):
    given = task(rows=2, chunks=(1, 2))
    with Log(tmp_path / "log.jsonl") as log:
        tuner([given], log, Formula(), Budget()).run()
    assert len(given.records) == given.space.size
    assert given.time == pytest.approx(least(given) * 1.005)


def test_failures_are_recorded_and_not_proposed_again(tmp_path):
    path = tmp_path / "log.jsonl"
    given, measures = task(), Formula(lambda plain: "crashed" if plain["tile"]["vectors"] == 2 else None)
    with Log(path) as log:
        tuner([given], log, measures, Budget(trials=100)).run()
    failed = [record for record in read_log(path).records if record.status == "crashed"]
    assert failed
    assert all(record.decisions["tile"]["vectors"] == 2 and not record.seconds for record in failed)
    assert len({record.trial for record in failed}) == len(failed)
    assert given.best.decisions["tile"]["vectors"] != 2


def test_a_lucky_measurement_does_not_win(tmp_path):
    class Lucky(Formula):
        """Is ten times too fast for one trial, once."""

        lucky = None

        def measure(self, trials, best):
            for place, outcome in super().measure(trials, best):
                plain = trials[place].decisions
                if self.lucky is None and plain["tile"]["rows"] > 12:
                    self.lucky = plain
                    outcome = dataclasses.replace(outcome, seconds=(1e-6,))
                yield place, outcome

    given, measures = task(), Lucky()
    with Log(tmp_path / "log.jsonl") as log:
        tuner([given], log, measures, Budget(trials=150)).run()
    assert measures.lucky is not None
    assert given.best.decisions != measures.lucky
    assert best(read_log(log.path).records)[given.workload, DEVICE, 2].decisions != measures.lucky
