"""What a start writes down is what each worker reads; a file that is not whole is refused, and nothing is guessed."""

import pytest

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.model.gpus import Gpu
from lingbi.model.resources import Resources
from lingbi.placement import record
from lingbi.placement.seats import Assignment
from lingbi.settings import Settings
from tests.conftest import DEMO
from tests.server.model.model_folders import published

CARD = Gpu("GPU-aa", "NVIDIA H200", 143771, 143000)


def test_a_worker_reads_its_own_line(tmp_path):
    large = published(tmp_path, "vl-7b", 17 << 30)
    settings = Settings(models_dir=tmp_path, model="demo,vl-7b")
    placement = planner.plan(settings, Resources([CARD], 0))
    file = record.file_in(tmp_path / "state")
    record.write(file, placement.seats)
    told = settings.model_copy(update={"placement_file": file, "model": "ignored", "workers": 2})
    for worker, path in enumerate((DEMO, large)):
        choice, found, assigned = planner.assigned(told.model_copy(update={"worker": worker}), [CARD])
        assert (choice.engine, found.path) == ("turbomind", path)
        assert assigned == placement.seats[worker].assignment and assigned.device == "GPU-aa"
    assert sum(seat.memory_mib for seat in placement.seats) <= CARD.free_mib
    with pytest.raises(ConfigurationError, match="lists 2 worker.*this is worker 2; start lingbi anew"):
        planner.assigned(told.model_copy(update={"worker": 2}), [CARD])


def test_a_worker_that_is_told_nothing_serves_the_one_model_of_its_settings(tmp_path):
    cards = [CARD, Gpu("1", "NVIDIA H200", 143771, 10)]
    settings = Settings(models_dir=tmp_path, model="demo", worker=3)
    _, found, assigned = planner.assigned(settings, cards)
    assert (found.path, assigned) == (DEMO, Assignment("demo", str(DEMO), "1", None))
    _, _, assigned = planner.assigned(settings, [])
    assert assigned.device is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"workers": [{"model": "demo"}]}', '{"workers": [1]}'])
def test_a_file_that_is_not_whole_is_refused(tmp_path, text):
    file = tmp_path / "placement.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="does not tell what each worker serves.*start lingbi anew"):
        record.read(file)
    file.unlink()
    with pytest.raises(ConfigurationError, match="does not tell what each worker serves"):
        record.read(file)
