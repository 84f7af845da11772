"""All four published geometries, random weights at full size: fetched, checked, loaded by TurboMind, asked."""

import json

import pytest

from lingbi.model import catalogue
from tests.conftest import lingbi
from tests.geometries import PUBLISHED, expect_fetched_loaded_and_right

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_geometry_is_fetched_loaded_and_answers(tmp_path, model):
    """Needs 35 GB of disk."""
    expect_fetched_loaded_and_right(model, "turbomind", tmp_path / "lab")


def test_the_pipeline_answers_in_batches(tmp_path):
    """More pictures than a batch, one of them unreadable, on TurboMind with the demo model."""
    from lingbi.images.scenes import Scene, Thing, draw

    for number in range(150):
        draw(Scene((Thing(("red", "blue", "green")[number % 3], "circle"),))).save(tmp_path / f"{number:03}.png")
    (tmp_path / "bad.png").write_text("no picture")
    rows = tmp_path / "rows.jsonl"
    options = ("--model", "demo", "--engine", "turbomind", "--to", rows)
    done = lingbi("pipeline", tmp_path, *options, state_dir=tmp_path / "s", LINGBI_CACHE_FRACTION="0.05")
    assert done.returncode == 1 and "150 answered, 1 failed" in done.stderr, done.stderr
    colours = {row["source"][-7:-4]: row.get("text") for row in map(json.loads, rows.read_text().splitlines())}
    assert all("红蓝绿"[int(name) % 3] in text for name, text in colours.items() if text)
