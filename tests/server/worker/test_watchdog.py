"""What the watchdog asks of the GPU, and what readiness says of it."""

import pynvml
import pytest

from lingbi.http.readiness import GPU_GONE, READY, Readiness
from lingbi.worker import watchdog


@pytest.fixture
def watching(service, monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_AT_GPU_S", 0)
    service.readiness.enter(READY)
    return watchdog.Watchdog(service, None, None, 30, 120, is_demo=True, uses_gpu=True)


def test_a_gpu_that_goes_and_comes_back_is_told(watching, monkeypatch):
    def gone():
        raise pynvml.NVMLError_Unknown

    readiness: Readiness = watching.service.readiness
    for find, phase in ((gone, GPU_GONE), (list, GPU_GONE), (lambda: ["a GPU"], READY), (list, GPU_GONE)):
        monkeypatch.setattr(watchdog, "find_gpus", find)
        watching._look_at_gpu()
        assert readiness.phase == phase and bool(readiness.error) == (phase == GPU_GONE)
