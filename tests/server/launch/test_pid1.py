"""Process 1 of the server's container: which workers it tries again, and when it gives up."""

import time
from types import SimpleNamespace

import pytest
from supervisor.states import ProcessStates, SupervisorStates

from lingbi.launch.pid1 import Keeper


class Process:
    """A worker as supervisord knows it."""

    def __init__(self, name: str, state: int):
        self.config, self.state, self.spawned = SimpleNamespace(name=name), state, 0

    def get_state(self) -> int:
        return self.state

    def spawn(self) -> None:
        self.spawned, self.state = self.spawned + 1, ProcessStates.STARTING


@pytest.fixture
def kept():
    """A keeper of two workers, the second of which was given up; (keeper, workers, its log's lines)."""
    lines = []
    logger = SimpleNamespace(warn=lines.append, error=lines.append, critical=lines.append)
    keeper = Keeper(SimpleNamespace(logger=logger, mood=SupervisorStates.RUNNING))
    workers = [Process("worker-0", ProcessStates.RUNNING), Process("worker-1", ProcessStates.FATAL)]
    keeper.process_groups = {"worker": SimpleNamespace(processes={item.config.name: item for item in workers})}
    keeper.give_up(workers[1])
    return keeper, workers, lines


def test_a_worker_that_was_given_up_is_tried_again_after_a_pause_and_counted(kept):
    keeper, (other, failed), lines = kept
    now = time.monotonic()
    keeper.try_again(now + keeper.pause_s / 2)
    assert (failed.spawned, other.spawned) == (0, 0) and keeper.exit_status == 0
    for trial in (1, 2):
        keeper.try_again(now + keeper.pause_s + 5)
        keeper.try_again(now + keeper.pause_s + 10)
        assert failed.spawned == trial and lines[-1] == f"worker-1 is tried again (attempt {trial})"
        failed.state = ProcessStates.FATAL
        keeper.give_up(failed)
    assert other.spawned == 0


def test_a_keeper_that_ends_tries_nothing_again(kept):
    keeper, (_, failed), _ = kept
    keeper.options.mood = SupervisorStates.SHUTDOWN
    keeper.try_again(time.monotonic() + keeper.pause_s + 5)
    assert failed.spawned == 0


@pytest.mark.parametrize("beside", [(), ("arbiter",)])
def test_without_any_worker_it_gives_up(kept, beside):
    keeper, (other, failed), _ = kept
    others = {name: Process(name, ProcessStates.RUNNING) for name in beside}
    keeper.process_groups["others"] = SimpleNamespace(processes=others)
    other.state = ProcessStates.FATAL
    keeper.give_up(other)
    assert keeper.exit_status == 3 and keeper.options.mood == SupervisorStates.SHUTDOWN
