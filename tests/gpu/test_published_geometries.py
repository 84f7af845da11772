"""All four published geometries, random weights at full size: fetched, checked, loaded by TurboMind, asked."""

import json
import shutil

import pytest

from lingbi import catalogue
from lingbi.random_model import make
from tests.conftest import ROOT, lingbi, running_server
from tests.hub import running_hub

PUBLISHED = ROOT.parent / "shared/models"
TEXT_TOKENS = 147  # of 请描述图中内容 with the published tokenizer and chat template

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_geometry_is_fetched_loaded_and_answers(tmp_path, model):
    """`scripts/up --model NAME` against a local hub that has the model; needs 35 GB of disk."""
    make(PUBLISHED / model.served_name, PUBLISHED / "tokenizer.model", tmp_path / "hub" / model.hub_id, seed=0)
    settings = {"LINGBI_MODELS_DIR": str(tmp_path / "models"), "LINGBI_CACHE_FRACTION": "0.2"}
    try:
        with running_hub(tmp_path / "hub") as hub:
            settings["LINGBI_HUB_ENDPOINT"] = hub.url
            with running_server(
                tmp_path / "state", "--model", model.name, "--engine", "turbomind", **settings
            ) as report:
                smoke = lingbi("smoke", "--json", state_dir=tmp_path / "state")
        checks = {check["name"]: check for check in json.loads(smoke.stdout.splitlines()[-1])["checks"]}
        assert smoke.returncode == 0, smoke.stderr
        assert report["model"] == model.served_name
        expected = TEXT_TOKENS + model.picture_tokens(640, 480)
        assert int(checks["prompt-tokens"]["detail"]) == expected
    finally:
        shutil.rmtree(tmp_path)  # 17 GB twice


def test_the_pipeline_answers_in_batches(tmp_path):
    """More pictures than a batch, one of them unreadable, on TurboMind with the demo model."""
    from lingbi.scenes import Scene, Thing, draw

    for number in range(150):
        draw(Scene((Thing(("red", "blue", "green")[number % 3], "circle"),))).save(tmp_path / f"{number:03}.png")
    (tmp_path / "bad.png").write_text("no picture")
    rows = tmp_path / "rows.jsonl"
    options = ("--model", "demo", "--engine", "turbomind", "--to", rows)
    done = lingbi("pipeline", tmp_path, *options, state_dir=tmp_path / "s", LINGBI_CACHE_FRACTION="0.05")
    assert done.returncode == 1 and "150 answered, 1 failed" in done.stderr, done.stderr
    colours = {row["source"][-7:-4]: row.get("text") for row in map(json.loads, rows.read_text().splitlines())}
    assert all("红蓝绿"[int(name) % 3] in text for name, text in colours.items() if text)
