"""Several models on one machine, by the same count of memory as one: cards of 24, 40 and 80 GB, one, two and eight."""

from dataclasses import replace

import pytest

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.folder import inspect
from lingbi.model.gpus import Gpu
from lingbi.model.host_memory import fit_on_cpu, least_on_cpu
from lingbi.model.resources import Resources
from lingbi.model.sizing import Wanted, fit, least_mib
from lingbi.settings import Settings
from tests.server.model.model_folders import published, take_geometry

ALL = "vl-7b,7b,4khd-7b,vl-1_8b"
NEEDS = {model.name: least_mib(model) for model in catalogue.MODELS}


def cards(*gigabytes: int) -> list[Gpu]:
    return [Gpu(str(number), f"{size} GB", size << 10, (size << 10) - 400) for number, size in enumerate(gigabytes)]


def settings_for(folder, model: str, **given) -> Settings:
    return Settings(**{"models_dir": folder, "state_dir": folder, "model": model} | given)


def placed(folder, model: str, gpus: list[Gpu], **given):
    return planner.plan(settings_for(folder, model, **given), Resources(gpus, 0))


def refusal(folder, model: str, gpus: list[Gpu], host_mib: int = 0, **given) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planner.plan(settings_for(folder, model, **given), Resources(gpus, host_mib))
    return str(caught.value)


def names(placement) -> list[str]:
    return [seat.served_name.removeprefix("internlm-xcomposer2-") for seat in placement.seats]


@pytest.mark.parametrize(
    ("model", "sizes", "devices"),
    [
        ("vl-7b,4khd-7b", (80,), "00"),
        ("vl-7b,4khd-7b", (48,), "00"),
        ("vl-7b,vl-1_8b", (40,), "00"),
        ("vl-7b,4khd-7b", (24, 24), "10"),
        ("vl-7b,4khd-7b", (80, 80), "01"),
        (ALL, (80, 80), "0110"),
        (ALL, (80,), "0000"),
        ("vl-7b*3,4khd-7b", (80,) * 8, "0123"),
        ("vl-7b*2,4khd-7b*2", (80, 80), "1001"),
        ("vl-7b*8,vl-1_8b*8", (40,) * 8, "0123456701234567"),
    ],
)
def test_models_have_cards_of_their_own_while_there_are_cards_and_share_where_memory_allows(
    tmp_path, model, sizes, devices
):
    placement = placed(tmp_path, model, cards(*sizes))
    assert sorted(seat.device for seat in placement.seats) == sorted(devices)
    for device in set(devices):
        here = [seat for seat in placement.seats if seat.device == device]
        assert len({seat.served_name for seat in here}) == len(here)
        free = cards(*sizes)[int(device)].free_mib
        assert sum(seat.fit.total_mib for seat in here) <= free
        if len(here) == 1:  # as it would be served alone
            assert here[0].memory_mib is None and here[0].fit == fit(here[0].model, free)
        else:
            assert sum(seat.memory_mib for seat in here) <= free
            for seat in here:
                assert seat.fit == fit(seat.model, free, Wanted(gpu_memory_mib=seat.memory_mib))


def test_workers_stand_in_the_order_of_the_models(tmp_path):
    placement = placed(tmp_path, "4khd-7b,vl-7b*3,vl-1_8b", cards(*[80] * 5))
    assert names(placement) == ["4khd-7b", "vl-7b", "vl-7b", "vl-7b", "vl-1_8b"]
    assert [seat.served_name for seat in placement.models] == [
        catalogue.find(name).served_name for name in ("4khd-7b", "vl-7b", "vl-1_8b")
    ]


def test_a_card_that_is_shared_gives_each_model_equally_many_sessions(tmp_path):
    """4khd-7b has sessions four times as long, so its cache is four times as large."""
    seven, tiled = placed(tmp_path, "vl-7b,4khd-7b", cards(141)).seats
    assert tiled.fit.cache_tokens / seven.fit.cache_tokens == pytest.approx(4, rel=0.1)
    assert (seven.fit.session_len, tiled.fit.session_len) == (4096, 16384)
    assert (seven.fit.quant_policy, tiled.fit.quant_policy) == ("0", "0")


def test_what_lingbi_may_take_of_a_card_is_divided_too(tmp_path):
    allowed = NEEDS["vl-7b"] + NEEDS["4khd-7b"]
    placement = placed(tmp_path, "vl-7b,4khd-7b", cards(141), gpu_memory_mib=allowed)
    assert [seat.memory_mib for seat in placement.seats] == [NEEDS["vl-7b"], NEEDS["4khd-7b"]]
    assert f"{allowed - 1} MiB free" in refusal(tmp_path, "vl-7b,4khd-7b", cards(141), gpu_memory_mib=allowed - 1)


def test_what_fits_alone_but_not_together_is_refused_with_numbers_and_what_would_fit(tmp_path):
    said = refusal(tmp_path, "vl-7b,4khd-7b", cards(24))
    total = NEEDS["vl-7b"] + NEEDS["4khd-7b"]
    assert said == (
        f"the models do not fit here together: vl-7b needs {NEEDS['vl-7b']} MiB, 4khd-7b needs {NEEDS['4khd-7b']} MiB, "
        f"{total} MiB in all; GPU 0 (24 GB) has {24176} MiB free; vl-7b or 4khd-7b would fit, or all in turn with LINGBI_ON_DEMAND=true"
    )
    said = refusal(tmp_path, ALL, cards(48))
    assert "; vl-7b,7b,vl-1_8b or vl-7b,4khd-7b,vl-1_8b or 7b,4khd-7b,vl-1_8b would fit, or all in turn" in said
    said = refusal(tmp_path, "vl-7b*2,4khd-7b*2", cards(24, 40))
    assert "vl-7b (2 times) needs" in said and "; vl-7b,4khd-7b would fit, or all in turn" in said


def test_what_fits_no_card_at_all_is_refused_as_if_it_were_alone(tmp_path):
    said = refusal(tmp_path, "vl-1_8b,vl-7b", cards(8))
    assert f"vl-7b needs {NEEDS['vl-7b']} MiB" in said and "are free on GPU 0 (8 GB)" in said


def test_more_workers_of_a_model_than_cards_are_refused(tmp_path):
    assert "ask for vl-7b*2 at most" in refusal(tmp_path, "vl-7b*3,vl-1_8b", cards(80, 80))
    assert "LINGBI_WORKERS=2 with" in refusal(tmp_path, "vl-7b,vl-1_8b", cards(80, 80), workers=2)
    assert "LINGBI_WORKERS=2 with" in refusal(tmp_path, "vl-7b*3", cards(80, 80, 80), workers=2)
    assert placed(tmp_path, "vl-7b*2", cards(80, 80, 80)).workers == 2
    assert placed(tmp_path, "vl-7b*2", cards(80, 80, 80), workers=2).workers == 2


def test_slices_of_a_card_are_cards(tmp_path):
    slices = [Gpu(f"MIG-{number}", "H200 MIG 3g.71gb", 71 << 10, 70 << 10) for number in range(2)]
    placement = placed(tmp_path, "vl-7b,4khd-7b,vl-1_8b", slices)
    assert {seat.device for seat in placement.seats} == {"MIG-0", "MIG-1"}


def test_two_folders_of_one_name_are_refused(tmp_path):
    first = published(tmp_path / "a", "vl-7b", 20 << 20)
    said = refusal(tmp_path, f"{first},vl-7b", cards(80))
    assert "are both served as 'internlm-xcomposer2-vl-7b'" in said and str(first) in said


def test_a_name_that_the_gateways_list_cannot_hold_is_refused(tmp_path):
    folder = published(tmp_path, "vl-7b", 20 << 20)
    take_geometry(folder, "vl-7b")
    config = (folder / "config.json").read_text().replace("4096", "512")
    (folder / "config.json").write_text(config)
    odd = folder.rename(tmp_path / "my model")
    said = refusal(tmp_path, f"{odd},demo", cards(80))
    assert "would be served as 'my model'" in said and "rename the folder" in said


def test_a_model_of_which_nothing_is_known_is_to_be_fetched_first(tmp_path):
    said = refusal(tmp_path, "owner/tuned,demo", cards(80))
    assert "scripts/fetch --model owner/tuned" in said


def test_host_memory_is_divided_on_the_cpu(tmp_path):
    settings = settings_for(tmp_path, "demo,vl-1_8b", engine="cpu")
    demo, small = (planner.identify(seat.found) for seat in planner.plan(settings, Resources([], 1 << 20)).seats)
    least = least_on_cpu(demo, settings) + least_on_cpu(small, settings)
    for host_mib in (least, least + 3000, 1 << 20):
        seats = planner.plan(settings, Resources([], host_mib)).seats
        assert sum(seat.memory_mib for seat in seats) <= host_mib
        assert [seat.device for seat in seats] == [None, None]
        assert [seat.fit for seat in seats] == [fit_on_cpu(seat.model, seat.memory_mib, settings) for seat in seats]
    said = refusal(tmp_path, "demo,vl-1_8b", [], least - 1, engine="cpu")
    assert f"this machine has {least - 1} MiB available" in said and "demo or vl-1_8b would fit" in said
    three = planner.plan(settings_for(tmp_path, "demo*2,vl-1_8b", engine="cpu"), Resources([], 1 << 20))
    assert names(three) == ["demo", "demo", "vl-1_8b"]


def test_one_model_alone_is_placed_as_ever(tmp_path):
    gpus = cards(80, 40)
    alone = placed(tmp_path, "vl-7b", gpus)
    assert [(seat.device, seat.memory_mib) for seat in alone.seats] == [("0", None), ("1", None)]
    assert alone.fits == tuple(fit(alone.model, gpu.free_mib) for gpu in gpus)
    assert placed(tmp_path, "vl-7b*1", [replace(gpus[0])]).fits == alone.fits[:1]
    folder = published(tmp_path, "vl-7b", 17 << 30)
    assert placed(tmp_path, "vl-7b", gpus).model == inspect(folder)
