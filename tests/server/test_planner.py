"""One decision for every start: engine, model, workers and room, refused in this order and for plain reasons."""

from dataclasses import replace

import pytest

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.launch import doctor, entrypoint
from lingbi.launch.entrypoint import ALONE
from lingbi.launch.plan import decide, resolved
from lingbi.model import catalogue
from lingbi.model.folder import inspect
from lingbi.model.gpus import Gpu
from lingbi.model.host_memory import fit_on_cpu, needed_mib
from lingbi.model.resources import Resources
from lingbi.model.sizing import fit, least_mib
from lingbi.planner import find_weights
from lingbi.settings import Settings
from lingbi.weights.start import locked_by
from tests.conftest import DEMO, free_port
from tests.server.model.model_folders import published

CARD = Gpu("0", "NVIDIA H200", 143771, 143000)
PLENTY_MIB = 1 << 20
NO_GPU = Resources([], PLENTY_MIB)


def settings_for(models_dir, **given) -> Settings:
    return Settings(**{"models_dir": models_dir, "state_dir": models_dir} | given)


def refusal(settings: Settings, resources: Resources) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planner.plan(settings, resources)
    return str(caught.value)


def test_a_placement_tells_engine_model_workers_and_room(tmp_path):
    cards = [CARD, replace(CARD, device="1", free_mib=100_000)]
    placement = planner.plan(settings_for(tmp_path, model="demo"), Resources(cards, 0))
    assert (placement.choice.engine, placement.found.path, placement.workers) == ("turbomind", DEMO, 2)
    assert placement.model == inspect(DEMO) and placement.served_name == catalogue.DEMO_SERVED_NAME
    assert placement.fits == tuple(fit(placement.model, card.free_mib) for card in cards)
    alone = planner.plan(settings_for(tmp_path, model="demo"), NO_GPU)
    assert (alone.choice.engine, alone.workers) == ("cpu", 1)
    assert alone.fits == (fit_on_cpu(alone.model, PLENTY_MIB, Settings()),)


def test_a_folder_that_is_given_is_placed_on_one_worker(tmp_path):
    cards = [CARD, replace(CARD, device="1", free_mib=100_000)]
    placement = planner.place_folder(DEMO, settings_for(tmp_path), Resources(cards, 0))
    assert (placement.choice.engine, placement.folder) == ("turbomind", inspect(DEMO))
    assert placement.fit == fit(placement.folder, CARD.free_mib)
    alone = planner.place_folder(DEMO, settings_for(tmp_path, engine="cpu"), Resources(cards, PLENTY_MIB))
    assert alone.choice.engine == "cpu" and alone.fit == fit_on_cpu(alone.folder, PLENTY_MIB, Settings())
    with pytest.raises(ConfigurationError, match="needs .* MiB"):
        planner.place_folder(DEMO, settings_for(tmp_path), Resources([], 1))


def test_a_model_that_is_to_be_fetched_is_judged_by_the_catalogue_or_not_at_all(tmp_path):
    known, needed = catalogue.find("7b"), needed_mib(catalogue.find("7b"), Settings().hd_num)
    placement = planner.plan(settings_for(tmp_path, model="7b"), Resources([], needed))
    assert (placement.model, placement.served_name) == (known, known.served_name)
    assert f"needs {needed} MiB" in refusal(settings_for(tmp_path, model="7b"), Resources([], needed - 1))
    placement = planner.plan(settings_for(tmp_path, model="somebody/fine-tuned"), Resources([CARD], 0))
    assert (placement.model, placement.served_name, placement.fits) == (None, "somebody--fine-tuned", ())


def test_a_card_with_too_little_free_memory_is_refused_with_both_numbers(tmp_path):
    large = published(tmp_path, "vl-7b", 17 << 30)
    needed = least_mib(inspect(large))
    full, enough = (replace(CARD, device="1", free_mib=mib) for mib in (needed - 1, needed))
    settings = settings_for(tmp_path, model="vl-7b")
    said = f"vl-7b needs {needed} MiB, and {needed - 1} MiB are free on GPU 1 (NVIDIA H200)"
    assert said in refusal(settings, Resources([CARD, full], 0))
    assert len(planner.plan(settings, Resources([CARD, enough], 0)).fits) == 2
    one = settings.model_copy(update={"workers": 1})  # which takes the first card
    assert len(planner.plan(one, Resources([CARD, full], 0)).fits) == 1


@pytest.mark.parametrize(
    ("engine", "cards", "given", "workers"),
    [("turbomind", 2, 0, 2), ("turbomind", 2, 1, 1), ("turbomind", 2, 2, 2), ("cpu", 0, 0, 1), ("cpu", 0, 3, 3)],
)
def test_workers_are_as_many_as_the_settings_say_else_one_a_gpu(tmp_path, engine, cards, given, workers):
    settings = settings_for(tmp_path, model="demo", engine=engine, workers=given)
    assert planner.plan(settings, Resources([CARD] * cards, PLENTY_MIB)).workers == workers


def test_one_gpu_is_not_shared_by_workers(tmp_path):
    said = refusal(settings_for(tmp_path, model="demo", workers=3), Resources([CARD, CARD], PLENTY_MIB))
    assert said == "LINGBI_WORKERS=3, and 2 GPU(s) are here; one worker takes one GPU"


FAULTS = {
    "engine": ({"engine": "turbomind"}, "needs an NVIDIA GPU"),
    "model": ({"model": "vl-8b"}, "'vl-8b' is neither a folder nor one of"),
    "fetch": ({"model": "vl-7b", "fetch": "never"}, "LINGBI_FETCH=never forbids fetching it"),
    "inspect": ({"model": "/nowhere"}, "model folder /nowhere does not exist"),
    "workers": ({"workers": 2}, "LINGBI_WORKERS=2, and 1 GPU"),
    "memory": ({"gpu_memory_mib": 1}, "LINGBI_GPU_MEMORY_MIB allows 1"),
}


@pytest.mark.parametrize("first", FAULTS)
def test_the_first_step_that_refuses_is_the_one_that_is_told(tmp_path, first):
    """Whatever the later steps would say."""
    steps = list(FAULTS)
    later = steps[steps.index(first) :]
    given = {"model": "demo"}
    for step in reversed(later):
        given |= FAULTS[step][0]
    cards = [] if first == "engine" else [CARD]
    assert FAULTS[first][1] in refusal(settings_for(tmp_path, **given), Resources(cards, 0))


def test_auto_takes_the_first_model_that_fits_the_gpu(tmp_path):
    settings = settings_for(tmp_path)
    large, small = published(tmp_path, "vl-7b", 17 << 30), published(tmp_path, "vl-1_8b", 5 << 30)
    needed = {path: least_mib(inspect(path)) for path in (large, small)}
    for free_mib, path in (
        (needed[large], large),
        (needed[large] - 1, small),
        (needed[small], small),
    ):
        _, found = planner.choose(settings, [Gpu("0", "card", 24576, free_mib)])
        assert found.path == path
        assert ("vl-7b does not fit" in found.reason) == (path != large)
    free_mib = needed[small] - 1
    said = refusal(settings, Resources([Gpu("0", "card", 24576, free_mib)], PLENTY_MIB))
    for path in (large, small):
        assert f"needs {needed[path]} MiB, and {free_mib} MiB are free on GPU 0 (card)" in said
    assert said.endswith("--model demo tries lingbi out with coloured shapes")
    card = Gpu("0", "card", 24576, 24000)
    limited = settings.model_copy(update={"gpu_memory_mib": needed[small]})
    assert planner.choose(limited, [card])[1].path == small
    named = limited.model_copy(update={"model": "vl-7b"})
    assert planner.choose(named, [card])[1].path == large  # what is named is not weighed here


def test_auto_weighs_only_the_gpus_that_get_a_worker(tmp_path):
    large = published(tmp_path, "vl-7b", 17 << 30)
    cards = [CARD, replace(CARD, device="1", free_mib=1)]
    assert planner.choose(settings_for(tmp_path, workers=1), cards)[1].path == large
    for workers in (0, 2):
        with pytest.raises(ConfigurationError, match="no published model can be served here: vl-7b does not fit"):
            planner.choose(settings_for(tmp_path, workers=workers), cards)


def test_auto_fetches_the_first_that_fits_the_gpu_where_none_is_here(tmp_path):
    for total_mib, name in ((80 << 10, "vl-7b"), (8 << 10, "vl-1_8b")):
        card = Gpu("0", "card", total_mib, total_mib - 200)
        _, found = planner.choose(settings_for(tmp_path), [card])
        assert found.is_to_come and found.hub_id == catalogue.find(name).hub_id
        assert found.reason.startswith(f"{name}, {catalogue.find(name).weight_bytes / 1e9:.1f} GB, to be fetched")
    small = published(tmp_path, "vl-1_8b", 5 << 30)
    assert planner.choose(settings_for(tmp_path), [CARD])[1].path == small  # nobody waits for 17 GB unasked
    said = refusal(settings_for(tmp_path / "none", fetch="never"), Resources([CARD], PLENTY_MIB))
    assert "forbids fetching it" in said and "--model demo" in said and "--model FOLDER" in said


def test_a_fetch_beside_a_running_server_fetches_nothing_else(tmp_path):
    """The memory that it holds is that of the model which is here."""
    large = published(tmp_path, "vl-7b", 17 << 30)
    busy = Gpu("0", "card", 24576, 100)
    assert [found.path for found in find_weights(settings_for(tmp_path), [busy])] == [large]
    with pytest.raises(ConfigurationError, match="no published model can be served here"):
        find_weights(settings_for(tmp_path / "none"), [busy])


def test_a_fetch_brings_every_model_that_is_named(tmp_path):
    settings = settings_for(tmp_path, model="demo,vl-7b*2,4khd-7b")
    names = [name for name, found in entrypoint.find_weights(settings) if found.is_to_come]
    assert names == [catalogue.find(name).served_name for name in ("vl-7b", "4khd-7b")]
    with pytest.raises(ConfigurationError, match="vl-7b.*LINGBI_FETCH=never forbids"):
        entrypoint.find_weights(settings.model_copy(update={"fetch": "never"}))
    lock = tmp_path / "lock.json"
    with pytest.raises(ConfigurationError, match="is one model's lock, and 3 models are served; give a folder"):
        entrypoint.find_weights(settings.model_copy(update={"weights_lock": lock}))
    found = planner.find_weights(settings.model_copy(update={"weights_lock": tmp_path}), [])[1]
    assert locked_by(found, Settings(weights_lock=tmp_path)).weights_lock == tmp_path / f"{found.served_name}.json"
    assert locked_by(found, Settings(weights_lock=lock)).weights_lock == lock


def test_workers_of_several_models_are_told_so_that_the_same_is_decided_again(tmp_path):
    settings = settings_for(tmp_path, model="demo*2,vl-1_8b", port=free_port(), engine="cpu")
    plan = decide(settings, ALONE, NO_GPU)
    told = resolved(plan)
    assert told.model == f"{DEMO}*2,{catalogue.find('vl-1_8b').hub_id}*1"
    assert planner.plan(told, NO_GPU).seats == tuple(
        replace(seat, found=again.found)
        for seat, again in zip(plan.placement.seats, planner.plan(told, NO_GPU).seats, strict=True)
    )
    assert planner.plan(told, NO_GPU).names() == plan.placement.names()


def test_auto_takes_the_demo_without_a_gpu_and_says_what_else_is_there(tmp_path):
    small = published(tmp_path, "vl-1_8b", 20 << 20)
    _, found = planner.choose(settings_for(tmp_path), [])
    assert found.path == DEMO and "vl-1_8b is slow on the CPU and served there only when it is named" in found.reason
    assert planner.choose(settings_for(tmp_path, model="vl-1_8b"), [])[1].path == small


def test_what_was_chosen_may_be_fetched_before_it_is_placed(tmp_path):
    """As scripts/pipeline does: the folder that counts is the one that is there then."""
    settings = settings_for(tmp_path, model="vl-1_8b")
    choice, found = planner.choose(settings, [])
    assert isinstance(planner.identify(found), catalogue.Model)
    folder = published(tmp_path, "vl-1_8b", 20 << 20)
    assert planner.place(choice, found, settings, NO_GPU).model == inspect(folder)


def test_a_fetch_asks_for_no_memory_of_a_model_that_others_will_load(tmp_path):
    """A machine with little memory beside a large card; the server's own check is the one that counts."""
    settings = settings_for(tmp_path, model="7b")
    assert [found.is_to_come for _, found in entrypoint.find_weights(settings)] == [True]
    assert "needs" in refusal(settings, Resources([], 100))
    for changes, said in (({"fetch": "never"}, "LINGBI_FETCH=never"), ({"model": "/nowhere"}, "does not exist")):
        with pytest.raises(ConfigurationError, match=said):
            entrypoint.find_weights(settings.model_copy(update=changes))


def test_workers_are_told_what_was_decided(tmp_path):
    for model, told in (("demo", str(DEMO)), ("vl-7b", catalogue.find("vl-7b").hub_id)):
        plan = decide(settings_for(tmp_path, model=model, port=free_port()), ALONE, NO_GPU)
        assert plan.front is None and (resolved(plan).model, resolved(plan).engine) == (told, "cpu")


def test_every_kind_of_start_refuses_more_workers_than_gpus(tmp_path, monkeypatch):
    for name, value in {"MODEL": "demo", "MODELS_DIR": tmp_path, "STATE_DIR": tmp_path, "WORKERS": 2}.items():
        monkeypatch.setenv(f"LINGBI_{name}", str(value))
    one = Resources([CARD], PLENTY_MIB)
    for judge in (doctor.start, doctor.replacement, lambda here: decide(Settings(), ALONE, here)):
        with pytest.raises(ConfigurationError, match="LINGBI_WORKERS=2, and 1 GPU"):
            judge(one)
