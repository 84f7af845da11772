"""The page shows the server's catalogue, in both languages."""

import json
import re

from lingbi.model.catalogue import MODELS
from lingbi_ui.models import FILE, models_list


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
