"""The engine is chosen by what the machine has, for a reason that people can read; memory is checked first."""

from dataclasses import replace

import pytest

from lingbi.errors import ConfigurationError
from lingbi.launch import doctor, plan
from lingbi.launch.entrypoint import ALONE
from lingbi.launch.plan import count_workers
from lingbi.model.folder import inspect
from lingbi.model.gpus import Gpu, admitted, choose_engine
from lingbi.model.host_memory import available_mib, check_memory, needed_mib
from lingbi.model.sizing import least_mib
from lingbi.settings import Settings, load_settings
from tests.conftest import DEMO

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
    ("visible", "devices"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,7,1", ["0"]),
        ("-1", []),
        ("0,0", []),
        ("GPU-a,GPU-b,GPU-a", []),
        ("GPU-a", ["GPU-a"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(visible, devices):
    assert admitted(["0", "1"], visible) == devices


@pytest.fixture
def big():
    return replace(inspect(DEMO), weight_bytes=17_333_676_032, served_name="big")


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(big):
    needed = needed_mib(big, Settings().hd_num)
    check_memory(big, "cpu", [], 1, needed, Settings())
    with pytest.raises(ConfigurationError, match=f"big needs {needed} MiB, and {needed - 1} MiB are"):
        check_memory(big, "cpu", [], 1, needed - 1, Settings())


def test_a_card_with_too_little_free_memory_is_refused_with_both_numbers(big):
    (fit,) = check_memory(big, "turbomind", [CARD, CARD], 1, 0, Settings())
    assert fit.total_mib <= CARD.free_mib
    needed = least_mib(big)
    full = replace(CARD, device="1", free_mib=needed - 1)
    said = rf"big needs {needed} MiB, and {needed - 1} MiB are free on GPU 1 \(NVIDIA H200\)"
    with pytest.raises(ConfigurationError, match=said):
        check_memory(big, "turbomind", [CARD, full], 2, 0, Settings())
    assert len(check_memory(big, "turbomind", [CARD, replace(full, free_mib=needed)], 2, 0, Settings())) == 2
    check_memory(big, "turbomind", [CARD, full], 1, 0, Settings())


def test_one_gpu_is_not_shared_by_workers():
    assert [count_workers(Settings(workers=number), "turbomind", [CARD, CARD]) for number in (0, 1, 2)] == [2, 1, 2]
    assert [count_workers(Settings(workers=number), "cpu", []) for number in (0, 3)] == [1, 3]
    with pytest.raises(
        ConfigurationError, match=r"LINGBI_WORKERS=3, and 2 GPU\(s\) are here; one worker takes one GPU"
    ):
        count_workers(Settings(workers=3), "turbomind", [CARD, CARD])


@pytest.mark.parametrize("judge", [doctor.replacement, lambda: plan.decide(load_settings(), ALONE)])
def test_more_workers_than_gpus_are_refused_by_every_start(judge, monkeypatch, tmp_path):
    for name, value in {"MODEL": "demo", "MODELS_DIR": tmp_path, "STATE_DIR": tmp_path, "WORKERS": 2}.items():
        monkeypatch.setenv(f"LINGBI_{name}", str(value))
    for module in (doctor, plan):
        monkeypatch.setattr(module, "find_gpus", lambda: [CARD])
    with pytest.raises(ConfigurationError, match="LINGBI_WORKERS=2, and 1 GPU"):
        judge()


def test_limit_of_the_control_group_counts(tmp_path):
    (tmp_path / "memory.max").write_text("104857600\n")
    (tmp_path / "memory.current").write_text("52428800\n")
    assert available_mib(tmp_path) == 50
    (tmp_path / "memory.max").write_text("max\n")
    assert available_mib(tmp_path) > 50
