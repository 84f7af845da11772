"""How a worker comes up: its phases, and what the garbage collector has to look at afterwards."""

import gc

import pytest

from lingbi.http.readiness import LOADING, PREPARING, PROBING, Readiness
from lingbi.worker.phases import bring_up


@pytest.fixture
def readiness():
    """Of a worker that starts; what it excludes from garbage collection is given back to the test's own process."""
    yield Readiness("model", "cpu", "a test")
    gc.unfreeze()


def test_the_phases_come_in_order_and_each_gets_what_the_one_before_made(readiness):
    seen = []

    def note(made):
        return lambda *given: (seen.append((readiness.phase, given)), made)[1]

    assert bring_up(readiness, note("fitted"), note("engine"), note(None)) == "fitted"
    assert seen == [(PREPARING, ()), (LOADING, ("fitted",)), (PROBING, ("fitted", "engine"))]


def test_a_phase_that_fails_ends_the_start_there(readiness):
    def fail(*_):
        raise MemoryError

    with pytest.raises(MemoryError):
        bring_up(readiness, lambda: None, fail, fail)
    assert readiness.phase == LOADING


def test_what_is_loaded_is_out_of_the_collectors_way_afterwards(readiness):
    """All collections that follow have few objects to look at."""
    looked_at = []
    bring_up(readiness, lambda: None, lambda _: None, lambda *_: looked_at.append(len(gc.get_objects())))
    assert len(gc.get_objects()) < looked_at[0] / 10
