"""scripts/plan says what fits a card that need not be here, and which number is too small."""

import json

import pytest

from lingbi.cli import plan
from lingbi.model import catalogue
from lingbi.model.gpus import Gpu
from lingbi.model.host_memory import needed_mib
from lingbi.model.resources import Resources
from lingbi.model.share import share_of
from lingbi.model.sizing import ANYTHING, BITS, Wanted, fit, least_mib
from lingbi.settings import load_settings

NAMES = [model.name for model in catalogue.MODELS]
LEAST = {model.name: least_mib(model) for model in catalogue.MODELS}
BETWEEN_MIB = (min(LEAST.values()) + max(LEAST.values())) // 2  # some fit, some do not
TOO_SMALL_MIB = min(LEAST.values()) - 1


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    monkeypatch.setenv("LINGBI_MODELS_DIR", str(tmp_path))


def tables(capsys) -> tuple:
    """({a card's line: {model: its row's cells}}, what was said as an error)."""
    out, err = capsys.readouterr()
    found = {}
    for block in out.split("\n\n")[3:]:
        card, head, *rows = block.strip().splitlines()
        assert head.split()[:3] == ["name", "at", "most"]
        found[card.removesuffix(":")] = {row.split()[0]: row.split()[1:] for row in rows}
    return found, err


def cells(model, free_mib: int, wanted: Wanted = ANYTHING) -> list:
    """A row as it must be."""
    if free_mib < least_mib(model, wanted):
        return ["needs", str(least_mib(model, wanted)), "MiB"]
    found = fit(model, free_mib, wanted)
    sizes = [str(found.total_mib), str(found.weights_mib), str(found.runtime_mib), f"{found.cache_mib},"]
    limits = (found.cache_tokens, found.session_len, found.max_batch_size, found.prefill_tokens)
    return [*sizes, str(BITS[found.quant_policy]), "bits", *map(str, limits)]


def test_every_card_asked_about_has_a_table_of_every_model(capsys):
    asked = (BETWEEN_MIB, max(LEAST.values()), 140_000)
    assert plan.main(["--gpu-mib", *map(str, asked)]) == 0
    found, said = tables(capsys)
    assert said == ""
    assert found == {
        f"a GPU with {mib} MiB free": {model.name: cells(model, mib) for model in catalogue.MODELS} for mib in asked
    }
    assert {"needs" in row for row in found[f"a GPU with {BETWEEN_MIB} MiB free"].values()} == {True, False}


@pytest.mark.parametrize("tp", ["2", "auto"])
def test_two_cards_that_may_hold_one_copy_have_a_table_of_their_own(capsys, monkeypatch, tp):
    monkeypatch.setenv("LINGBI_TP", tp)
    assert plan.main(["--gpu-mib", "12000", "16000"]) == 0
    rows = tables(capsys)[0]["GPUs 0,1 together, MiB of the first"]
    assert rows.pop("4khd-7b") == ["one", "card", "only"]
    assert rows == {name: cells(share_of(catalogue.find(name), 2), 12_000) for name in rows} and len(rows) == 3


def test_a_card_for_no_model_is_refused_with_both_numbers_after_all_have_been_shown(capsys):
    assert plan.main(["--gpu-mib", str(TOO_SMALL_MIB), "140000"]) == 2
    found, said = tables(capsys)
    assert list(found) == [f"a GPU with {TOO_SMALL_MIB} MiB free", "a GPU with 140000 MiB free"]
    needs = ", ".join(f"{name} needs {LEAST[name]} MiB" for name in NAMES)
    assert said == f"error: no model fits a GPU with {TOO_SMALL_MIB} MiB free: {needs}\n"


def test_the_operators_settings_count(capsys, monkeypatch):
    limit_mib = BETWEEN_MIB
    monkeypatch.setenv("LINGBI_GPU_MEMORY_MIB", str(limit_mib))
    monkeypatch.setenv("LINGBI_MAX_BATCH_SIZE", "3")
    assert plan.main(["--gpu-mib", "140000"]) == 0
    found, _ = tables(capsys)
    wanted = Wanted(max_batch_size=3)
    expected = {model.name: cells(model, limit_mib, wanted) for model in catalogue.MODELS}
    assert found == {f"a GPU with 140000 MiB free, of which LINGBI_GPU_MEMORY_MIB allows {limit_mib}": expected}
    monkeypatch.setenv("LINGBI_GPU_MEMORY_MIB", "1")
    assert plan.main(["--gpu-mib", "140000"]) == 2
    assert "140000 MiB free, of which LINGBI_GPU_MEMORY_MIB allows 1: vl-7b needs" in tables(capsys)[1]


def test_the_cards_that_are_here_unless_others_are_asked_about(capsys):
    here = Resources([Gpu("0", "L4", 24_000, 23_000), Gpu("1", "L4", 24_000, 24_000)], 0)
    plan.show(load_settings(), here, [])
    found, _ = tables(capsys)
    assert list(found) == [
        f"GPU {device} (L4) with {free} of 24000 MiB free" for device, free in ((0, 23000), (1, 24000))
    ]
    assert found["GPU 0 (L4) with 23000 of 24000 MiB free"]["vl-7b"] == cells(catalogue.find("vl-7b"), 23_000)
    for engine in ("auto", "cpu"):
        plan.show(load_settings(engine=engine), here, [24_000])
        assert list(tables(capsys)[0]) == ["a GPU with 24000 MiB free"]
    plan.show(load_settings(engine="cpu"), here, [])
    assert tables(capsys)[0] == {}


def test_on_the_cpu_the_host_memory_tells_what_fits(capsys):
    needed = {name: needed_mib(catalogue.find(name), catalogue.HD_NUM) for name in NAMES}
    plan.show(load_settings(), Resources([], needed["vl-1_8b"]), [])
    rows = capsys.readouterr().out.split("\n\n")[1].splitlines()[1:]
    said = {row.split()[0]: row.split("  ")[-1].strip() for row in rows}
    assert said == {name: f"to be fetched, needs {mib} MiB" for name, mib in needed.items()} | {
        "vl-1_8b": "to be fetched, fits",
        "demo": "fits",
    }


@pytest.mark.parametrize("bad", [["--gpu-mib", "24G"], ["--gpu-mib"], ["--gpu"]])
def test_a_size_that_is_none_is_refused(capsys, bad):
    with pytest.raises(SystemExit) as ended:
        plan.main(bad)
    assert ended.value.code == 2 and "--gpu-mib" in capsys.readouterr().err


def test_where_the_workers_would_go_is_shown_before_anything_starts(capsys):
    assert plan.main(["--model", "vl-7b*2", "--model", "4khd-7b", "--gpu-mib", "81000", "81000"]) == 0
    rows = capsys.readouterr().out.split("Where the workers would go, on the engine turbomind:\n")[1].splitlines()
    assert [row.split()[:4] for row in rows[1:]] == [
        ["0", "internlm-xcomposer2-vl-7b", "GPU", "1"],
        ["1", "internlm-xcomposer2-vl-7b", "GPU", "0"],
        ["2", "internlm-xcomposer2-4khd-7b", "GPU", "0"],
    ]
    alone = fit(catalogue.find("vl-7b"), 81000)
    said = [alone.total_mib, alone.weights_mib, alone.runtime_mib, alone.cache_mib, alone.session_len]
    assert rows[1].split()[4:9] == [str(number) for number in said]


def test_what_does_not_fit_together_is_refused_after_the_tables(capsys):
    assert plan.main(["--model", "vl-7b,4khd-7b", "--gpu-mib", "24000"]) == 2
    out, err = capsys.readouterr()
    assert f"4khd-7b needs {LEAST['4khd-7b']} MiB" in err and "vl-7b or 4khd-7b would fit" in err
    assert "a GPU with 24000 MiB free" in out and "Where the workers" not in out


def test_the_placement_alone_is_told_as_json(capsys, monkeypatch):
    monkeypatch.setenv("LINGBI_MODEL", "vl-7b,vl-1_8b")
    assert plan.main(["--json", "--gpu-mib", "81000"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["engine"] == "turbomind"
    assert [(worker["model"], worker["device"]) for worker in told["workers"]] == [
        ("internlm-xcomposer2-vl-7b", "0"),
        ("internlm-xcomposer2-vl-1_8b", "0"),
    ]
    assert all(worker["fit"]["total_mib"] <= worker["memory_mib"] for worker in told["workers"])


def test_one_model_of_the_settings_changes_nothing(capsys, monkeypatch):
    assert plan.main(["--gpu-mib", "24000"]) == 0
    before = capsys.readouterr().out
    monkeypatch.setenv("LINGBI_MODEL", "vl-7b")
    assert plan.main(["--gpu-mib", "24000"]) == 0
    assert capsys.readouterr().out == before
