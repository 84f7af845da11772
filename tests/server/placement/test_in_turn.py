"""Models on demand: each must fit its card, not all together."""

import pytest

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.gpus import Gpu
from lingbi.model.resources import Resources
from lingbi.model.sizing import fit
from lingbi.settings import Settings

ALL = "vl-7b,7b,4khd-7b,vl-1_8b"


def cards(*gigabytes: int) -> list[Gpu]:
    return [Gpu(str(number), f"{size} GB", size << 10, (size << 10) - 400) for number, size in enumerate(gigabytes)]


def placed(folder, model: str, gpus: list[Gpu], **given):
    settings = Settings(models_dir=folder, state_dir=folder, model=model, on_demand=True, **given)
    return planner.plan(settings, Resources(gpus, 4096))


def test_all_models_have_one_card_of_24_gb_in_turn_each_with_all_of_it(tmp_path):
    found = placed(tmp_path, ALL, cards(24))
    assert [seat.device for seat in found.seats] == ["0"] * 4
    free_mib = (24 << 10) - 400
    assert list(found.fits) == [fit(catalogue.find(name), free_mib) for name in ALL.split(",")]
    with pytest.raises(ConfigurationError, match="do not fit here together"):
        planner.plan(Settings(models_dir=tmp_path, state_dir=tmp_path, model=ALL), Resources(cards(24), 4096))


def test_models_are_spread_over_cards_and_copies_of_one_have_cards_of_their_own(tmp_path):
    assert [seat.device for seat in placed(tmp_path, ALL, cards(24, 24)).seats] == ["0", "1", "0", "1"]
    assert [seat.device for seat in placed(tmp_path, "vl-7b*2,4khd-7b", cards(24, 24)).seats] == ["0", "1", "0"]
    with pytest.raises(ConfigurationError, match=r"vl-7b\*2 asks for 2 workers"):
        placed(tmp_path, "vl-7b*2,4khd-7b", cards(80))


def test_those_that_are_loaded_at_once_divide_their_card(tmp_path):
    found = placed(tmp_path, ALL, cards(80), models_awake=2)
    assert {seat.memory_mib for seat in found.seats} == {((80 << 10) - 400) // 2}
    assert all(found_fit.total_mib <= (40 << 10) for found_fit in found.fits)


def test_a_model_that_does_not_fit_its_card_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="internlm-xcomposer2-vl-7b needs"):
        placed(tmp_path, "vl-1_8b,vl-7b", cards(24, 8))


def test_on_a_cpu_each_may_take_the_memory_that_is_there(tmp_path):
    found = placed(tmp_path, "demo", [])
    assert [seat.device for seat in found.seats] == [None] and found.choice.engine == "cpu"
