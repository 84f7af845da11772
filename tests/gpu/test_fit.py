"""What scripts/plan says of a card's memory is what a worker takes there, under eight picture chats at once.

Random weights in the published geometries, as `scripts/bench --with` measures them.
"""

import json
import math

import pytest

from lingbi.bench.__main__ import main as bench
from lingbi.model import catalogue
from lingbi.model.sizing import MIB, block_bytes, fit
from tests.geometries import PUBLISHED, random_weights

CHATS = 8
WITHIN = 0.05

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_model_keeps_to_its_plan_on_the_card_it_is_recommended_for(model, tmp_path):
    card_mib = model.card_gb << 10
    with random_weights(model, tmp_path / "weights") as folder:
        limited = f"GPU_MEMORY_MIB={card_mib}"
        options = ("--talks", "2", "--rounds", "1", "--no-chart", "--to", tmp_path / "bench")
        assert bench(["--model", str(folder), "--ask", f"chat:{CHATS}", "--with", limited, *map(str, options)]) == 0
    (measured,) = json.loads((tmp_path / "bench/rounds.json").read_text())["sides"].values()
    planned_mib, peak_mib = measured["gpu_planned_mib"], measured["gpu_peak_mib"]
    # a folder's shards have heads of some KB, which the catalogue does not count: they may cost a MiB, or the last block
    counted = fit(model, card_mib)
    block_mib = math.ceil(block_bytes(model, counted.quant_policy) / MIB)
    assert abs(planned_mib - counted.total_mib) <= 1 + block_mib
    assert abs(planned_mib / peak_mib - 1) <= WITHIN, (planned_mib, peak_mib)
    assert peak_mib <= card_mib
