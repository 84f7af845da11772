"""The engine is chosen by what the machine has, for a reason that people can read."""

from dataclasses import replace
from types import SimpleNamespace

import pynvml
import pytest

from lingbi.errors import ConfigurationError, StartError
from lingbi.model.gpus import Gpu, admitted, choose_engine, find_gpus, look_at

CARD = Gpu("0", "NVIDIA H200", 143771, 143000)


def test_automatic_choice_names_its_reason():
    assert choose_engine("auto", []).engine == "cpu"
    choice = choose_engine("auto", [CARD])
    assert choice.engine == "turbomind" and "NVIDIA H200" in choice.reason
    assert choose_engine("cpu", [CARD]).engine == "cpu"


def test_turbomind_without_a_gpu_is_refused():
    with pytest.raises(ConfigurationError, match="needs an NVIDIA GPU"):
        choose_engine("turbomind", [])


@pytest.mark.parametrize(
    ("name", "capability"), [("NVIDIA B200", (10, 0)), ("NVIDIA GeForce RTX 5090", (12, 0)), ("Tesla P100", (6, 0))]
)
def test_a_card_that_turbomind_has_no_code_for_is_refused_by_name(name, capability):
    new = Gpu("1", name, 183359, 183000, capability)
    for requested in ("auto", "turbomind"):
        with pytest.raises(ConfigurationError, match=rf"GPU 1 \({name}\) has compute capability .* 7.0 to 9.0 only"):
            choose_engine(requested, [CARD, new])
    assert choose_engine("cpu", [new]).engine == "cpu"
    for known in ((7, 0), (8, 9), (9, 0), None):
        assert choose_engine("auto", [replace(new, capability=known)]).engine == "turbomind"


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,7,1", ["0"]),
        ("-1", []),
        ("0,0", []),
        ("GPU-a1,GPU-b2,GPU-a1", []),
        ("GPU-b2,0", ["GPU-b2", "0"]),
        ("GPU-b,GPU-a", ["GPU-b2", "GPU-a1"]),
        ("0,GPU-a1", []),
        ("GPU-,0", []),
        ("1,GPU-c,0", ["1"]),
        ("MIG-x,MIG-y", ["MIG-x", "MIG-y"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(visible, devices):
    assert admitted(["GPU-a1", "GPU-b2"], visible) == devices


@pytest.fixture
def driver_with_a_lost_card(monkeypatch):
    """NVIDIA's driver on a machine with two cards, of which the second no longer answers."""

    def handle(index: int) -> int:
        if index == 1:
            raise pynvml.NVMLError_GpuIsLost
        return index

    values = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": lambda handle: CARD.name,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=CARD.total_mib << 20, free=CARD.free_mib << 20),
        "nvmlDeviceIsMigDeviceHandle": lambda handle: False,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
    }
    for name, value in values.items():
        monkeypatch.setattr(pynvml, name, value)


@pytest.mark.parametrize(("visible", "found"), [(None, ["0"]), ("1,0", ["0"]), ("1", []), ("0", ["0"])])
def test_a_card_that_the_driver_lost_takes_no_other_with_it(
    driver_with_a_lost_card, monkeypatch, caplog, visible, found
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.device for gpu in find_gpus()] == found
    assert ("GPU 1 is left out" in caplog.text) == (visible != "0")
    with pytest.raises(StartError, match="cannot reach GPU 1, on which this worker was placed"):
        look_at("1")


@pytest.mark.gpu
def test_a_gpu_is_looked_at_again_by_its_device():
    for gpu in find_gpus():
        again = look_at(gpu.device)
        assert (again.device, again.name, again.total_mib) == (gpu.device, gpu.name, gpu.total_mib)
