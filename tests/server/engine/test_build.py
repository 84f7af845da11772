"""What building an engine changes in its process."""

import sys

import pytest

from lingbi.engine import build
from lingbi.engine.local import EngineNeeds
from lingbi.model.folder import inspect
from lingbi.model.host_memory import fit_on_cpu
from lingbi.model.sizing import fit
from lingbi.settings import Settings
from tests.conftest import DEMO


def test_a_workers_threads_take_short_turns_and_its_reserves_are_small_on_a_gpu_only(monkeypatch):
    """Whoever waits for a turn wakes as often: a CPU engine needs its cores itself."""
    monkeypatch.setattr("lingbi.engine.local.LocalEngine", lambda needs: needs)
    monkeypatch.setattr("lingbi.engine.build.adopt", lambda logger: None)
    monkeypatch.setenv("TM_LOG_LEVEL", "ERROR")
    shrunk = []
    monkeypatch.setattr("lingbi.engine.turbomind.workspaces.shrink_reserves", lambda: shrunk.append(True))
    folder, settings, usual_s = inspect(DEMO), Settings(), sys.getswitchinterval()
    try:
        build.build_engine(EngineNeeds(folder, settings, fit_on_cpu(folder, 8000, settings)))
        assert sys.getswitchinterval() == usual_s and not shrunk
        build.build_engine(EngineNeeds(folder, settings, fit(folder, 24_000)))
        assert sys.getswitchinterval() == pytest.approx(build.THREAD_TURN_S)
        assert len(shrunk) == 1
    finally:
        sys.setswitchinterval(usual_s)
