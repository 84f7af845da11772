"""Two cards hold one copy of a model where that is asked for or needed, and a start refuses by name where it cannot work."""

from dataclasses import replace

import pytest

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.launch.entrypoint import ALONE
from lingbi.launch.plan import decide
from lingbi.model import catalogue
from lingbi.model.gpus import Gpu, as_one, together
from lingbi.model.resources import Resources
from lingbi.model.share import share_of
from lingbi.model.sizing import fit, least_mib
from lingbi.placement import record
from lingbi.settings import Settings
from tests.conftest import DEMO

VL_7B = catalogue.find("vl-7b")
SMALL_MIB, LARGE_MIB = 12_000, 24_000
PUBLISHED = {"model": "vl-7b", "engine": "turbomind"}


def cards(count: int, mib: int = SMALL_MIB) -> list[Gpu]:
    return [Gpu(str(number), "card", mib, mib) for number in range(count)]


def planned(folder, gpus: list[Gpu], **given):
    settings = Settings(**{"models_dir": folder, "state_dir": folder} | PUBLISHED | given)
    return planner.plan(settings, Resources(gpus, 0))


def refusal(folder, gpus: list[Gpu], **given) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planned(folder, gpus, **given)
    return str(caught.value)


def test_cards_go_together_in_their_order_and_count_as_the_one_with_least_memory():
    gpus = [Gpu("0", "a", 100, 50), Gpu("GPU-b", "b", 90, 80), Gpu("2", "c", 100, 100)]
    (pair,) = together(gpus, 2)
    assert (pair.device, pair.total_mib, pair.free_mib, pair.cards) == ("0,GPU-b", 90, 50, 2)
    assert together(gpus, 1) == gpus and as_one(gpus[:1]) is gpus[0]


@pytest.mark.parametrize(("count", "devices"), [(2, ["0,1"]), (5, ["0,1", "2,3"])])
def test_a_worker_gets_two_cards(tmp_path, count, devices):
    placement = planned(tmp_path, cards(count), tp="2")
    assert [seat.device for seat in placement.seats] == devices
    assert placement.fits[0] == fit(share_of(VL_7B, 2), SMALL_MIB)
    assert placement.seats[0].place.endswith("on GPU 0,1")


def test_auto_takes_two_only_where_one_is_too_small(tmp_path):
    assert [seat.device for seat in planned(tmp_path, cards(4), tp="auto").seats] == ["0,1", "2,3"]
    assert [seat.device for seat in planned(tmp_path, cards(2, LARGE_MIB), tp="auto").seats] == ["0", "1"]
    mixed = [*cards(1, LARGE_MIB), replace(cards(2)[1])]
    assert [seat.device for seat in planned(tmp_path, mixed, tp="auto", workers=1).seats] == ["0"]
    assert planned(tmp_path, cards(2), tp="auto", model="auto").served_name.endswith("vl-1_8b")  # alone on each


def test_without_it_nothing_changes(tmp_path):
    needed = least_mib(VL_7B)
    for tp, gpus in (("1", cards(2)), ("auto", cards(1)), ("auto", cards(2, 8_000))):
        assert f"needs {needed} MiB" in refusal(tmp_path, gpus, tp=tp)
    assert [seat.device for seat in planned(tmp_path, cards(2, LARGE_MIB)).seats] == ["0", "1"]


@pytest.mark.parametrize(
    ("gpus", "given", "said"),
    [
        (cards(1), {}, "1 GPU(s) are here"),
        (cards(2), {"engine": "cpu"}, "the engine is cpu"),
        (cards(2), {"on_demand": True}, "LINGBI_ON_DEMAND"),
        (cards(2, LARGE_MIB), {"model": "vl-7b,7b"}, "names several"),
        ([Gpu("MIG-1", "slice", 9, 9), Gpu("MIG-2", "slice", 9, 9)], {}, "MIG-1 is a slice"),
        (cards(2), {"model": str(DEMO)}, "1 key-value head(s)"),
        (cards(2), {"model": "4khd-7b"}, "one card only"),
        (cards(2), {"workers": 2}, "one worker takes 2"),
        (cards(2, 9_000), {}, f"needs {least_mib(share_of(VL_7B, 2))} MiB"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path, gpus, given, said):
    assert said in refusal(tmp_path, gpus, tp="2", **given)


def test_auto_leaves_slices_models_on_demand_and_several_models_alone(tmp_path):
    slices = [replace(gpu, device=f"MIG-{gpu.device}") for gpu in cards(2)]
    assert "needs" in refusal(tmp_path, slices, tp="auto")
    assert "needs" in refusal(tmp_path, cards(2), tp="auto", on_demand=True)
    several = planned(tmp_path, cards(2, LARGE_MIB), tp="auto", model="vl-7b,7b")
    assert [seat.device for seat in several.seats] == ["0", "1"]


def test_a_worker_is_told_its_two_cards(tmp_path):
    settings = Settings(**PUBLISHED, tp="2", models_dir=tmp_path, state_dir=tmp_path)
    plan = decide(settings, ALONE, Resources(cards(4), 0))
    record.write(record.file_in(tmp_path), plan.placement.seats)
    for number, device in enumerate(("0,1", "2,3")):
        told = record.assignment(record.file_in(tmp_path), number)
        assert (told.device, told.memory_mib) == (device, None)
        alone = settings.model_copy(update={"worker": number})
        assert planner.assigned(alone, cards(4))[2].device == device  # without the file too


def test_a_folder_that_is_given_may_take_two_cards(tmp_path, monkeypatch):
    folder = replace_facts(tmp_path, monkeypatch)
    for tp, count in (("1", 1), ("2", 2), ("auto", 2)):
        settings = Settings(**PUBLISHED, tp=tp, models_dir=tmp_path, state_dir=tmp_path)
        gpus = cards(2, LARGE_MIB if tp == "1" else SMALL_MIB)
        assert planner.place_folder(folder, settings, Resources(gpus, 0)).fit.cards == count


def replace_facts(tmp_path, monkeypatch):
    """A folder that the planner takes for vl-7b's, without its 17 GB."""
    monkeypatch.setattr(planner, "inspect", lambda path: VL_7B)
    return tmp_path
