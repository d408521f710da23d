"""Trials on boards, servers at a tracker of this machine: boards die, trials crash and hang, none is lost."""

import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest

from compiler.build.kernel_library import kernel_library
from compiler.deploy.board_server import ServerOptions, serving
from compiler.deploy.threads import use_threads
from compiler.support.errors import UsageError
from compiler.target import load
from compiler.tune import tracker
from compiler.tune.boards import BoardWorkers, _Boards
from compiler.tune.builder import Builders
from compiler.tune.runner import Where
from compiler.tune.trial import Patience
from tests.tune import faults

LOCAL = "127.0.0.1"
PATIENCE = Patience(build=20, run=3, sample=0.0005, repeats=3)


class Rack:
    """A tracker and boards of the key 'edge'."""

    def __init__(self):
        self._stack, self.boards = ExitStack(), []

    def __enter__(self):
        server = self._stack.enter_context(serving(ServerOptions(LOCAL, (0, 0))))
        self.tracker = tracker.Address(LOCAL, server.port)
        return self

    def __exit__(self, *about):
        self._stack.close()

    def plug_in(self, count):
        options = ServerOptions(LOCAL, (0, 0), "edge", (LOCAL, self.tracker.port), LOCAL)
        with ThreadPoolExecutor(count) as hands:  # each loads TVM
            boards = hands.map(lambda _: self._stack.enter_context(serving(options)), range(count))
            self.boards.extend(boards)
        end = time.monotonic() + 20
        while tracker.count(self.tracker, "edge") < len(self.boards) and time.monotonic() < end:
            time.sleep(0.05)

    def cut_power(self):
        os.killpg(self.boards.pop().group, signal.SIGKILL)


@pytest.fixture(scope="module")
def rack():
    """Two boards, for tests that leave them alive."""
    with Rack() as made:
        made.plug_in(2)
        yield made


def workers(where, link=kernel_library, count=1, **more):
    target = load("host")
    made = BoardWorkers(
        Builders(target, link, PATIENCE, count), where, target, 1, **{"patience": PATIENCE, **more}
    )
    assert made.add(faults.as_kernel()) == 0
    return made


def none_yet(kernel):
    return float("inf")


def test_all_trials_are_finished_though_a_board_dies_midway():
    wanted = faults.trials(16)
    with Rack() as rack:
        rack.plug_in(2)
        with workers(Where(rack.tracker, "edge")) as measures:
            found = []
            for outcome in measures.measure(wanted, none_yet):
                found.append(outcome)
                if len(found) == 4:
                    rack.cut_power()
            assert sorted(place for place, _ in found) == list(range(16))
            for _, outcome in found:
                assert outcome.status == "ok", outcome
                assert len(outcome.seconds) == 3
                assert 0 < statistics.median(outcome.seconds) < 1
            # The last one dies, too, and another comes back later.
            rack.cut_power()
            rest = measures.measure(wanted[:2], none_yet)
            rack.plug_in(1)
            assert {outcome.status for _, outcome in rest} == {"ok"}
    assert not [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_what_goes_wrong_on_a_board_costs_one_trial(rack):
    wanted = faults.trials(8)
    with workers(Where(rack.tracker, "edge"), faults.faulty_library) as measures:
        found = dict(measures.measure(wanted, none_yet))
    assert sorted(found) == list(range(8))
    crash, hang, wrong = (found.pop(place) for place in (2, 4, 6))
    assert (crash.status, crash.note) == ("crashed", "two sessions with boards ended with it")
    assert (hang.status, hang.note) == ("timed out", "no end in 3 s, twice")
    assert wrong.status == "wrong"
    assert "of the greatest value" in wrong.note
    assert {outcome.status for outcome in found.values()} == {"ok"}


def test_libraries_run_on_this_machine_without_a_tracker():
    with workers(Where(use_threads=use_threads), faults.faulty_library) as measures:
        found = dict(measures.measure(faults.trials(4), none_yet))
    assert [found[place].status for place in range(4)] == ["ok", "ok", "crashed", "ok"]
    assert found[2].note == "the process that ran it died"


def test_a_missing_board_is_given_up_after_long(rack):
    boards = _Boards(Where(rack.tracker, "gone"), gone=0.1)
    assert boards.number() == 0
    boards.wait(hungry=True)
    boards.wait(hungry=False)
    time.sleep(0.2)
    boards.wait(hungry=True)
    time.sleep(0.2)
    with pytest.raises(UsageError, match=r"expected a board 'gone'.*: it knows none; what was measured"):
        boards.wait(hungry=True)


def test_boards_are_known_by_their_keys(rack):
    (queue,) = tracker.queues(rack.tracker)
    assert (queue.key, queue.total) == ("edge", 2)
    assert tracker.known_boards(rack.tracker, "edge") == 2
    with pytest.raises(UsageError, match="knows no board 'rpi4', but 'edge'"):
        tracker.known_boards(rack.tracker, "rpi4")


def test_what_is_no_tracker_is_said(rack):
    with pytest.raises(UsageError, match=r"no tracker answers at 127.0.0.1:1: Connection refused"):
        tracker.reachable(tracker.Address(LOCAL, 1))
    with pytest.raises(UsageError, match="no tracker answers"):
        tracker.reachable(tracker.Address(LOCAL, rack.boards[0].port))


@pytest.mark.parametrize("text", ["host:", ":1", "a:b", "a:0", "a:65536"])
def test_wrong_addresses(text):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        tracker.address(text)


def test_addresses():
    assert tracker.address("rack") == tracker.Address("rack", tracker.PORT)
    assert str(tracker.address("10.0.0.1:99")) == "10.0.0.1:99"
