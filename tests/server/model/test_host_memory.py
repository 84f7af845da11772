"""Host memory is counted within the limit of the control group, and a model that needs more is refused."""

from dataclasses import replace

import psutil
import pytest

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue, host_memory
from lingbi.model.folder import inspect
from lingbi.model.host_memory import (
    MIB,
    CpuFit,
    available_mib,
    check_memory,
    fit_on_cpu,
    needed_mib,
    whole_mib,
    workers_share_mib,
)
from lingbi.model.sizing import image_session
from lingbi.settings import Settings
from tests.conftest import DEMO


@pytest.fixture
def big():
    return replace(inspect(DEMO), weight_bytes=17_333_676_032, served_name="big")


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(big):
    needed = needed_mib(big, Settings().hd_num)
    check_memory(big, "cpu", [], 1, needed, Settings())
    with pytest.raises(ConfigurationError, match=f"big needs {needed} MiB, and {needed - 1} MiB are"):
        check_memory(big, "cpu", [], 1, needed - 1, Settings())


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("vl-7b", "free some, or use --model vl-1_8b or demo"),
        ("vl-1_8b", "free some, or use --model demo"),
        ("demo", "free some"),
    ],
)
def test_only_lighter_models_are_proposed(name, remedy):
    with pytest.raises(ConfigurationError) as caught:
        fit_on_cpu(replace(SMALL, served_name=f"internlm-xcomposer2-{name}"), 10, Settings())
    assert str(caught.value).endswith(f"; {remedy}")


def test_every_worker_needs_its_own_memory(big):
    needed = 3 * needed_mib(big, Settings().hd_num)
    check_memory(big, "cpu", [], 3, needed, Settings())
    with pytest.raises(ConfigurationError, match=f"big needs {needed} MiB"):
        check_memory(big, "cpu", [], 3, needed - 1, Settings())


@pytest.mark.parametrize(
    ("limit_file", "used_file"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_the_limit_of_the_control_group_counts_in_both_its_versions(tmp_path, limit_file, used_file):
    (tmp_path / "memory").mkdir()
    (tmp_path / limit_file).write_text(f"{300 * MIB}\n")
    (tmp_path / used_file).write_text(f"{100 * MIB}\n")
    assert available_mib(tmp_path) == whole_mib(tmp_path) == 200


@pytest.mark.parametrize("limit", [None, "max", str(1 << 62)])
def test_without_a_limit_the_machines_memory_counts(tmp_path, limit):
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{100 * MIB}\n")
    assert 200 < available_mib(tmp_path) < whole_mib(tmp_path) == psutil.virtual_memory().total // MIB


def test_one_of_many_workers_plans_with_its_share_of_the_machine():
    assert workers_share_mib(1) <= available_mib() + MIB  # between two looks
    assert workers_share_mib(1000) == whole_mib() // 1000


SMALL = catalogue.find("vl-1_8b")


def rank(found: CpuFit) -> tuple:
    """What a fit offers, the dearest to give up first: its session, then answers, kept sessions, and steps."""
    return (found.session_len, found.max_batch_size, found.kept_sessions, found.prefill_tokens)


@pytest.fixture(params=[True, False], ids=["fast bfloat16", "float32"])
def much_mib(request, tmp_path, monkeypatch):
    """Memory in which SMALL has all that it wants, on a processor of either kind."""
    described = tmp_path / "cpuinfo"
    flags = "fpu avx2 avx512f avx512dq avx512bw avx512vl" if request.param else "fpu avx2"
    described.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n")
    monkeypatch.setattr(host_memory, "PROCESSOR", described)
    return 12_000 if request.param else 22_000


def test_less_memory_never_offers_more_and_is_never_overstepped(much_mib):
    least = needed_mib(SMALL, Settings().hd_num)
    found = [fit_on_cpu(SMALL, mib, Settings()) for mib in range(least, much_mib, 97)]
    assert [rank(item) for item in found] == sorted(rank(item) for item in found)
    assert all(item.total_mib <= mib for item, mib in zip(found, range(least, much_mib, 97), strict=True))
    usual = Settings()
    assert rank(found[-1]) == (4096, usual.cpu_sequences, usual.cpu_kept_sessions, usual.cpu_prefill_tokens)
    assert found[0].session_len == image_session(SMALL, Settings().hd_num) and found[0].max_batch_size == 1


def test_a_step_that_takes_too_much_gets_smaller_before_sessions_go(much_mib):
    settings = Settings(cpu_prefill_tokens=16384)
    found = fit_on_cpu(SMALL, much_mib, settings)
    assert 256 <= found.prefill_tokens < 4096 and found.max_batch_size == settings.cpu_sequences


def test_without_fast_bfloat16_the_weights_take_twice_the_memory(much_mib):
    found = fit_on_cpu(SMALL, much_mib, Settings())
    bytes_a_number = 2 if much_mib == 12_000 else 4
    assert found.weights_mib == SMALL.weight_bytes // MIB * bytes_a_number // 2


def test_a_processor_unlike_x86_has_no_such_flags(tmp_path):
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert host_memory.has_fast_bfloat16(described)


def test_a_session_that_is_asked_for_is_not_shortened():
    least = needed_mib(SMALL, Settings().hd_num)
    with pytest.raises(ConfigurationError, match=rf"needs \d+ MiB, and {least} MiB are"):
        fit_on_cpu(SMALL, least, Settings(session_len=4096))
