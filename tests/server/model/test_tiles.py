"""LINGBI_HD_NUM: into how many tiles an image is cut, and what is counted for them."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lingbi.cli import plan
from lingbi.errors import ConfigurationError
from lingbi.model import catalogue, sizing
from lingbi.model.host_memory import TILED_TOWER_MIB, fit_on_cpu, needed_mib
from lingbi.model.resources import Resources
from lingbi.model.sizing import MEASURED_TILES, Wanted, least_mib
from lingbi.settings import Settings, load_settings
from lingbi.smoke.checks import ONE, QUESTION_TOKENS, expected_tokens
from tests.conftest import DEMO, ROOT

TILED, SQUASHED = catalogue.find("4khd-7b"), catalogue.find("vl-7b")
HD_NUMS = (1, 2, 4, 9, 16, 25, 40, 55)
SIZES = [(640, 480), (480, 640), (64, 64), (100, 2500), (2500, 100), (3840, 2160), (1000, 999), (5, 700)]
TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
HEAD_SIZE = 128  # the language model is not asked anything


@pytest.fixture(scope="module")
def tiled_folder(tmp_path_factory):
    """A model with 4khd's tiles, random weights and next to no width."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shutil.copytree(DEMO, tmp_path_factory.mktemp("tiled") / "tiny_4khd")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["InternLM2ForCausalLM"], "max_length": catalogue.SESSION_LEN_4KHD}
    config |= {"vision_stem": None, "img_size": None, "hidden_size": HEAD_SIZE, "num_attention_heads": 1}
    config |= {"num_hidden_layers": 1, "vision_config": TOWER | {"image_size": catalogue.TILE, "patch_size": 14}}
    del config["lingbi_demo"]
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder, trust_remote_code=True), trust_remote_code=True
    )
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def features(folder, image: Image.Image, hd_num: int) -> torch.Tensor:
    """What the CPU engine makes of an image."""
    from lingbi.engine.cpu.checkpoint import CpuVisionModel

    model = CpuVisionModel(str(folder), hd_num)
    (found,) = model.forward([model.prepare(image)])
    return found


@pytest.mark.parametrize("hd_num", [1, 4, 25])
def test_the_cpu_engine_makes_as_many_tokens_as_are_counted(tiled_folder, hd_num):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    found = features(tiled_folder, image, hd_num)
    assert found.shape == (catalogue.tiled_image_tokens(40, 30, hd_num), HEAD_SIZE)


def test_the_cpu_engines_25_tiles_are_lmdeploys_own(tiled_folder):
    from lingbi.engine.cpu.checkpoint import CpuVisionModel

    image = Image.new("RGB", (640, 480), "red")
    model = CpuVisionModel(str(tiled_folder), catalogue.HD_NUM)
    (lmdeploys,) = model._forward_4khd_7b([image])
    assert torch.equal(features(tiled_folder, image, catalogue.HD_NUM), lmdeploys.float())


@pytest.mark.parametrize("hd_num", [1, 4, 25])
def test_the_gpus_tower_is_given_the_same_tiles(tiled_folder, monkeypatch, hd_num):
    """Cutting runs on the CPU; what the tower makes of the tiles is tests/gpu's."""
    from lingbi.vision.tower import GpuVisionModel

    monkeypatch.setattr(torch.cuda, "Stream", lambda *arguments, **options: None)
    model = GpuVisionModel(str(tiled_folder), hd_num, device="cpu")
    height, width, _ = model.prepare(Image.new("RGB", (40, 30))).shape
    rows, columns = height // catalogue.TILE, width // catalogue.TILE
    tokens = (rows * columns + 1) * catalogue.TILE_TOKENS + 1 + (rows + 1) * catalogue.ROW_TOKENS
    assert tokens == catalogue.tiled_image_tokens(40, 30, hd_num)


def test_a_model_without_tiles_does_the_same_with_any_number():
    image = Image.new("RGB", (640, 480), "red")
    assert torch.equal(features(DEMO, image, 1), features(DEMO, image, 55))
    few, many = Wanted(hd_num=1), Wanted(hd_num=55)
    assert sizing.fit(SQUASHED, 40_000, few) == sizing.fit(SQUASHED, 40_000, many)
    assert needed_mib(SQUASHED, 1) == needed_mib(SQUASHED, 55)
    assert SQUASHED.image_range(1) == SQUASHED.image_range(55) == "1225"


@pytest.mark.parametrize("hd_num", HD_NUMS)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_the_tiles_that_the_models_code_makes(size, hd_num):
    """The demo's ixc_utils.py does as the published one."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("ixc_utils", DEMO / "ixc_utils.py")
    ixc_utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ixc_utils)
    width, height = ixc_utils.HD_transform(Image.new("RGB", size), hd_num=hd_num).size
    columns, rows = width // catalogue.TILE, height // catalogue.TILE
    assert columns * rows <= hd_num
    view = 12 * (12 + 1)  # 12 rows of 12 tokens and a separator: the overview, and as much of every tile
    expected = view + 1 + rows * 12 * (columns * 12 + 1)
    assert catalogue.tiled_image_tokens(*size, hd_num) == expected


@pytest.mark.parametrize("hd_num", HD_NUMS)
def test_the_range_holds_every_image_and_its_ends_are_met(hd_num):
    ends = [int(end) for end in TILED.image_range(hd_num).split("-")]
    shapes = [(width, height) for width in range(1, 120) for height in (1, 7, 19, 64, 119)]
    seen = {catalogue.tiled_image_tokens(*size, hd_num) for size in shapes}
    assert [min(ends), max(ends)] == [min(seen), max(seen)]
    assert catalogue.tiled_image_tokens(*catalogue.largest_image(hd_num), hd_num) == max(seen)


def test_what_the_default_and_4k_cost():
    assert (TILED.image_range(), TILED.image_range(55)) == ("1897-4057", "4057-8737")


@pytest.mark.parametrize("page", ["docs/server.md", "docs/server.zh-CN.md"])
def test_the_documents_table_is_what_is_counted(page):
    row = re.compile(r"\| (\d+) \| ([\d-]+) \| (\d+) \| (\d+) \|")
    rows = [found.groups() for found in map(row.fullmatch, (ROOT / page).read_text().splitlines()) if found]
    assert len(rows) == 5
    for hd_num, *told in rows:
        sizes = [str(TILED.image_tokens(*size, int(hd_num))) for size in ((640, 480), (3840, 2160))]
        assert told == [TILED.image_range(int(hd_num)), *sizes]


def test_the_tower_takes_memory_by_the_batch_above_what_was_measured():
    at = {hd_num: sizing.tower_bytes(None, hd_num) for hd_num in HD_NUMS}
    assert {at[hd_num] for hd_num in HD_NUMS if hd_num <= MEASURED_TILES} == {at[MEASURED_TILES]}
    assert at[55] == pytest.approx(at[25] * 56 / 26) and at[25] < at[40] < at[55]
    on_cpu = {hd_num: fit_on_cpu(TILED, 1 << 20, Settings(hd_num=hd_num)).runtime_mib for hd_num in (1, 25, 55)}
    assert on_cpu[1] == on_cpu[25] == on_cpu[55] - TILED_TOWER_MIB * 30 // 26
    assert needed_mib(TILED, 1) < needed_mib(TILED, 25) < needed_mib(TILED, 55)


def test_a_card_too_small_for_so_many_tiles_is_told_to_take_fewer():
    many = Wanted(hd_num=55)
    assert least_mib(TILED, replace(many, hd_num=25)) < least_mib(TILED, many)
    with pytest.raises(ConfigurationError, match="lower LINGBI_HD_NUM, which is 55"):
        sizing.fit(TILED, least_mib(TILED, many) - 1, many)
    found = sizing.fit(TILED, least_mib(TILED, many), many)
    assert found.session_len >= 8737 + catalogue.TEMPLATE_TOKENS + sizing.LEAST_ANSWER_TOKENS


def test_plan_counts_them(capsys, tmp_path):
    plan.show(Settings(hd_num=55, models_dir=tmp_path), Resources([], 0), [40_000])
    shown = capsys.readouterr().out
    assert "4057-8737" in shown and "1897-4057" not in shown
    found = sizing.fit(TILED, 40_000, Wanted(hd_num=55))
    row = next(line for line in reversed(shown.splitlines()) if line.startswith("4khd-7b "))
    assert row.split()[1:4] == [str(found.total_mib), str(found.weights_mib), str(found.runtime_mib)]


@pytest.mark.parametrize("hd_num", [1, 25, 55])
def test_smoke_expects_what_the_server_says(hd_num):
    told = {"form": "lmdeploy", "template_tokens": 0, "hd_num": hd_num}
    image = catalogue.tiled_image_tokens(ONE.width, ONE.height, hd_num)
    assert expected_tokens(TILED.served_name, told) == catalogue.TEMPLATE_TOKENS + QUESTION_TOKENS + image


def test_the_default_is_lmdeploys():
    assert Settings().hd_num == catalogue.HD_NUM
    assert expected_tokens(TILED.served_name, {}) == 3232  # of a server that does not say


@pytest.mark.parametrize("value", ["0", "56", "many"])
def test_a_number_that_cannot_be_is_refused(monkeypatch, value):
    monkeypatch.setenv("LINGBI_HD_NUM", value)
    with pytest.raises(ConfigurationError, match=f"LINGBI_HD_NUM='{value}'"):
        load_settings()
