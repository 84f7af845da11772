"""What each of two cards has of a model is counted from its shape, as lmdeploy divides the tensors."""

import json
import math

import pytest

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.folder import inspect
from lingbi.model.share import copied_bytes, language_bytes, share_of, tower_weights
from lingbi.model.sizing import MIB, TOGETHER_MIB, Wanted, block_bytes, fit, least_mib
from tests.conftest import DEMO
from tests.geometries import PUBLISHED

SQUARE = [model for model in catalogue.MODELS if model.image_side]
COPIED = (
    *("tok_embeddings", "output.weight", "norm.weight", "wqkv.Plora_A", "w1.Plora_A", "w3.Plora_A"),
    *("wo.Plora_B", "w2.Plora_B"),
)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
@pytest.mark.parametrize("model", SQUARE, ids=lambda model: model.name)
def test_every_published_tensor_is_counted_once_or_on_both_cards(model):
    tensors = json.loads((PUBLISHED / model.served_name / "tensors.json").read_text())["tensors"]
    sizes = {name: 2 * math.prod(entry["shape"]) for name, entry in tensors.items()}
    tower = {name: size for name, size in sizes.items() if name.startswith(("vit.", "vision_proj."))}
    copied = {name: size for name, size in sizes.items() if name not in tower and any(part in name for part in COPIED)}
    assert copied_bytes(model.geometry) == sum(copied.values())
    assert language_bytes(model.geometry) == sum(sizes.values()) - sum(tower.values())
    assert tower_weights(model) == sum(tower.values())
    share = share_of(model, 2)
    split = sum(sizes.values()) - sum(tower.values()) - sum(copied.values())
    assert share.weight_bytes == sum(copied.values()) + split // 2 + sum(tower.values())


def test_half_of_the_kv_cache_is_on_each_card():
    model = catalogue.find("vl-7b")
    share = share_of(model, 2)
    for quant_policy in ("0", "4", "8"):
        assert 2 * block_bytes(share, quant_policy) == block_bytes(model, quant_policy)
    assert share.geometry.kv_bytes * 2 == model.geometry.kv_bytes
    assert share.geometry.hidden_size == model.geometry.hidden_size


@pytest.mark.parametrize("model", SQUARE, ids=lambda model: model.name)
def test_two_cards_need_less_each_than_one_and_more_together(model):
    share = share_of(model, 2)
    alone, each = least_mib(model), least_mib(share)
    assert alone / 2 < each < alone and 2 * each > alone
    found = fit(share, each)
    assert (found.cards, found.total_mib <= each) == (2, True)
    with pytest.raises(ConfigurationError, match="needs"):
        fit(share, each - 1)
    assert 0 < found.tower_mib < found.weights_mib
    assert f"{found.total_mib} MiB at most on each of 2 cards" in str(found)


def test_what_cards_need_beside_each_other_is_counted_for_several_only():
    model, wanted = catalogue.find("7b"), Wanted(max_batch_size=4, session_len=1024, prefill_tokens=1024)
    alone, each = fit(model, 24_000, wanted), fit(share_of(model, 2), 24_000, wanted)
    shape = model.geometry
    halved = 2 * (1024 + 4096) // 2 * 2 * shape.intermediate_size // 2 // MIB  # the feed-forward's buffers
    assert abs(each.runtime_mib - (alone.runtime_mib + TOGETHER_MIB - halved)) <= 1
    assert (alone.cards, each.cards) == (1, 2)
    assert share_of(model, 1) is model


def test_what_cannot_be_divided_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="1 key-value head.*2 cards cannot share"):
        share_of(inspect(DEMO), 2)
    with pytest.raises(ConfigurationError, match="4khd-7b runs on one card only"):
        share_of(catalogue.find("4khd-7b"), 2)
    with pytest.raises(ConfigurationError, match="8 key-value head.*3 cards"):
        share_of(catalogue.find("vl-7b"), 3)
