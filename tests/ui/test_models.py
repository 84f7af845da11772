"""The page shows the server's catalogue, in both languages."""

import json
import re

from lingbi.model.catalogue import MODELS
from lingbi_ui.models import FILE, default_of, models_list, offer_of


def test_the_pages_models_are_the_catalogues():
    expected = [
        {
            "name": model.name,
            "served_name": model.served_name,
            "purpose": model.purpose,
            "purpose_zh": model.purpose_zh,
            "picture_range": model.image_range(),
            "session_len": model.session_len,
            "weights_gb": f"{model.weight_bytes / 1e9:.1f}",
            "card_gb": model.card_gb,
        }
        for model in MODELS
    ]
    assert json.loads(FILE.read_text(encoding="utf-8")) == expected


def test_every_model_is_listed_with_its_facts_in_both_languages():
    items = re.findall(r'<li data-model="([^"]+)">(.*?)</li>', models_list())
    assert [name for name, _ in items] == [model.served_name for model in MODELS]
    for model, (_, item) in zip(MODELS, items, strict=True):
        assert {model.purpose, model.purpose_zh} <= set(re.findall(r'<span lang="[^"]+">([^<]+)</span>', item))
        assert item.count(model.image_range()) == 2 and item.count(f"{model.card_gb} GB") == 2


def offered(state="ready", **facts):
    return offer_of({"id": "internlm-xcomposer2-4khd-7b", "lingbi": {"state": state} | facts})


def test_what_is_offered_is_shown_with_its_state_and_what_a_picture_costs():
    found = offered("waking", progress=0.4, image_tokens=[1897, 4057], session_length=16384)
    assert (found["name"], found["phase"], found["part"]) == ("4khd-7b", "waking", 0.4)
    assert found["facts"] == [
        "A picture takes 1897-4057 tokens of 16384",
        "一张图片占 1897-4057 个 token，会话共 16384 个",
    ]
    assert offered(image_tokens=[1225, 1225], session_length=4096)["facts"][0] == "A picture takes 1225 tokens of 4096"
    assert offered(session_length=4096)["facts"] == ["A conversation holds 4096 tokens", "会话共 4096 个 token"]
    away = offer_of({"id": "shapes"})
    assert (away["name"], away["phase"], away["facts"]) == ("shapes", "away", ["", ""])


def test_who_has_chosen_no_model_gets_one_that_is_ready():
    assert default_of([offered("asleep"), offered() | {"id": "b"}])["id"] == "b"
    assert default_of([offered("asleep"), offered("waking") | {"id": "b"}])["phase"] == "asleep"
