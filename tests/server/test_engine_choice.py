"""The engine is chosen by what the machine has, for a reason that people can read; memory is checked first."""

from dataclasses import replace

import pytest

from lingbi.engines.choice import Gpu, admitted, choose_engine
from lingbi.errors import ConfigurationError
from lingbi.memory import available_mib, check_memory, needed_mib
from lingbi.model_folder import inspect
from lingbi.settings import Settings
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
        ("GPU-a", ["GPU-a"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(visible, devices):
    assert admitted(["0", "1"], visible) == devices


@pytest.fixture
def big():
    return replace(inspect(DEMO), weight_bytes=17_333_676_032, served_name="big")


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(big):
    needed = needed_mib(big)
    check_memory(big, "cpu", [], 1, needed, Settings())
    with pytest.raises(ConfigurationError, match=f"big needs {needed} MiB, and {needed - 1} MiB are"):
        check_memory(big, "cpu", [], 1, needed - 1, Settings())


def test_a_card_with_too_little_free_memory_is_refused_with_both_numbers(big):
    (fit,) = check_memory(big, "turbomind", [CARD, CARD], 1, 0, Settings())
    assert fit.total_mib <= CARD.free_mib
    with pytest.raises(
        ConfigurationError, match=r"big needs 17\d\d\d MiB, and 9000 MiB are free on GPU 0 \(NVIDIA H200\)"
    ):
        check_memory(big, "turbomind", [replace(CARD, free_mib=9000)], 1, 0, Settings())


def test_limit_of_the_control_group_counts(tmp_path):
    (tmp_path / "memory.max").write_text("104857600\n")
    (tmp_path / "memory.current").write_text("52428800\n")
    assert available_mib(tmp_path) == 50
    (tmp_path / "memory.max").write_text("max\n")
    assert available_mib(tmp_path) > 50
