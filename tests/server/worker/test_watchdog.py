"""What the watchdog asks of the GPU, and what readiness says of it."""

import pynvml
import pytest

from lingbi.http.readiness import GPU_GONE, READY, Readiness
from lingbi.worker import watchdog


@pytest.fixture
def watching(service):
    service.readiness.enter(READY)
    return watchdog.Watchdog(service, None, None, 30, 120, is_demo=True, cards=1)


def test_a_gpu_that_goes_and_comes_back_is_told(watching):
    def gone():
        raise pynvml.NVMLError_Unknown

    readiness: Readiness = watching.service.readiness
    for find, phase in ((gone, GPU_GONE), (list, GPU_GONE), (lambda: ["a GPU"], READY), (list, GPU_GONE)):
        watching.note_gpu(watchdog.gpu_fault(find))
        assert readiness.phase == phase and bool(readiness.error) == (phase == GPU_GONE)


def test_both_of_two_gpus_must_be_there():
    assert watchdog.gpu_fault(lambda: ["one", "another"], cards=2) is None
    assert "1 of 2 GPUs" in watchdog.gpu_fault(lambda: ["one"], cards=2)
