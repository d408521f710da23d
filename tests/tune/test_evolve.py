"""Kernels without a rule: MetaSchedule proposes, we measure, and it hears of what was measured."""

import math

import numpy as np
from tvm import relax, topi

from compiler.schedule.log import Log, read_log
from compiler.schedule.records import Record
from compiler.schedule.space import from_plain, key
from compiler.tune.budget import Budget
from compiler.tune.evolve import Evolved
from compiler.tune.task import Task, find_tasks
from compiler.tune.trial import Outcome
from compiler.tune.tuner import Tuner, recall
from tests.schedule.test_traces import HOST, column_sums, space_of, transposition
from tests.tune.made_up import DEVICE
from tests.tune.test_tuner import FACTS, Heard


def task(function, name="transposition 1 #1"):
    space = space_of(function)
    return Task([name], name, function, 1, (False, False), "fallback", space, 1e6, 1 << 20)


def sampled(plain):
    """Return the sizes of the inner tiles that a trace has, nothing of one without tiles."""
    if plain["trace"] is None:
        return []
    steps, decisions = plain["trace"]
    return [value[-1] for place, value in decisions if steps[place][0] == "SamplePerfectTile"]


def seconds(plain):
    """Return how long a trace takes: least with inner tiles of 8 elements."""
    tiles = sampled(plain)
    return 1e-4 * (1 + sum(abs(math.log2(tile / 8)) for tile in tiles)) if tiles else 1e-3


class Formula:
    def __init__(self):
        self.asked = []

    def measure(self, trials, best):
        for place, trial in enumerate(trials):
            self.asked.append(trial.decisions)
            yield place, Outcome("ok", (seconds(trial.decisions),))


def take(given, plain):
    """Give a task the record of a trial."""
    given.take(
        Record(
            workload=given.workload, device=DEVICE, threads=2, rule="fallback", decisions=plain,
            seconds=(seconds(plain),), default=plain == given.plain_default,
        )
    )  # fmt: skip


def run(given, log, measures, most, **options):
    Tuner([given], {given: 0}, measures, log, FACTS, Budget(trials=most), Heard(), **options).run()


def test_it_finds_better_traces_tries_none_twice_and_goes_on_from_a_log(tmp_path):
    path, measures = tmp_path / "log.jsonl", Formula()
    function = transposition(8, 64, 96)
    given = task(function)
    with Log(path) as log:
        run(given, log, measures, 120)
    first, *others = measures.asked[:120]
    assert first == {"trace": None, "tvm": ""}
    assert given.first.default
    assert len({key(plain) for plain in measures.asked[:120]}) == 120
    assert all(from_plain(plain, given.space) is not None for plain in others)
    # Of 28 * 36 * 16 combinations, 120 taken blindly would hardly hold one that is so near to the best.
    assert given.time < 2.5e-4

    again, later = task(function), Formula()
    recall([again], read_log(path).records, FACTS)
    assert again.best.trial == given.best.trial
    with Log(path) as log:
        run(again, log, later, 160, trials=120, spent=1.0)
    fresh = later.asked[:32]
    assert not {key(plain) for plain in fresh} & {key(plain) for plain in measures.asked}
    near = [plain for plain in fresh if seconds(plain) < 4e-4]
    assert near, "what an earlier session found is changed further"


def test_where_nothing_is_sampled_there_are_as_many_trials_as_designs():
    given = task(transposition(1, 1, 1 << 14), "flat #1")
    assert given.space.size == 2
    searcher, generator = Evolved(), np.random.default_rng()
    (default,) = searcher.propose(given, 16, generator)
    take(given, default)
    (only,) = searcher.propose(given, 16, generator)
    assert only["trace"] is not None
    take(given, only)
    assert searcher.propose(given, 16, generator) == []


def test_columns_are_summed_in_tiles_too():
    tiled = [design for design in space_of(column_sums(96, 128)).designs() if len(design.trace.decisions) > 1]
    assert tiled


def test_kernels_of_two_outputs_small_ones_and_other_shapes_are_no_tasks():
    x = relax.Var("x", relax.TensorType((4, 64, 96), "float32"))
    small = relax.Var("small", relax.TensorType((4, 6, 9), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, small]):
        with builder.dataflow():
            halves = builder.emit_te(topi.split, x, 2, 1)
            turned = builder.emit_te(topi.transpose, x, [0, 2, 1])
            little = builder.emit_te(topi.transpose, small, [0, 2, 1])
            flat = builder.emit_te(topi.reshape, turned, [4, 64 * 96])
            out = builder.emit_output(relax.Tuple([halves, turned, little, flat]))
        builder.emit_func_output(out)
    (found,) = find_tasks(builder.finalize(), HOST)
    assert found.workload.startswith("T_transpose 4x64x96 -> 4x96x64")
    assert (found.rule, found.calls, found.constants) == ("fallback", 1, (False, False))
