"""What building an engine changes in its process."""

import sys

import pytest

from lingbi.engine import build
from lingbi.engine.local import EngineNeeds
from lingbi.model import catalogue
from lingbi.model.folder import inspect
from lingbi.model.host_memory import fit_on_cpu
from lingbi.model.share import share_of
from lingbi.model.sizing import fit
from lingbi.settings import Settings
from tests.conftest import DEMO


def test_a_workers_threads_take_short_turns_and_its_reserves_are_small_on_a_gpu_only(monkeypatch):
    """Whoever waits for a turn wakes as often: a CPU engine needs its cores itself."""
    monkeypatch.setattr("lingbi.engine.local.LocalEngine", lambda needs: needs)
    monkeypatch.setattr("lingbi.engine.build.adopt", lambda logger: None)
    monkeypatch.setenv("TM_LOG_LEVEL", "ERROR")
    shrunk = []
    monkeypatch.setattr("lingbi.engine.turbomind.workspaces.shrink_reserves", shrunk.append)
    folder, settings, usual_s = inspect(DEMO), Settings(), sys.getswitchinterval()
    try:
        build.build_engine(EngineNeeds(folder, settings, fit_on_cpu(folder, 8000, settings)))
        assert sys.getswitchinterval() == usual_s and not shrunk
        build.build_engine(EngineNeeds(folder, settings, fit(folder, 24_000)))
        assert sys.getswitchinterval() == pytest.approx(build.THREAD_TURN_S)
        assert shrunk == [1]  # on one card
    finally:
        sys.setswitchinterval(usual_s)


def test_the_engine_is_told_of_every_card_that_holds_its_model():
    for cards in (1, 2):
        needs = EngineNeeds(inspect(DEMO), Settings(), fit(share_of(catalogue.find("vl-7b"), cards), 24_000))
        assert (needs.cards, needs.backend_config().tp) == (cards, cards)
    assert EngineNeeds(inspect(DEMO), Settings(), fit_on_cpu(inspect(DEMO), 8000, Settings())).cards == 1
