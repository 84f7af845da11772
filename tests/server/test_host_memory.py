"""Host memory is counted within the limit of the control group, and a model that needs more is refused."""

from dataclasses import replace

import psutil
import pytest

from lingbi.errors import ConfigurationError
from lingbi.model.folder import inspect
from lingbi.model.host_memory import MIB, available_mib, check_memory, needed_mib, whole_mib
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
