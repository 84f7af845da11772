"""The models that lingbi serves, for the page: models.json holds the server's catalogue (tests/ui/test_models.py)."""

import html
import json
from pathlib import Path
from typing import Any

from lingbi_ui.words import WORDS, in_both

FILE = Path(__file__).parent / "models.json"


def models_list() -> str:
    """An HTML list of the models in both languages; page.js marks the one that answers."""
    return f'<ul class="models">{"".join(map(_item, json.loads(FILE.read_text(encoding="utf-8"))))}</ul>'


def _item(model: dict[str, Any]) -> str:
    model = {name: html.escape(str(value)) for name, value in model.items()}
    purpose = in_both(model["purpose"], model["purpose_zh"])
    facts = in_both(*(text.format(**model) for text in WORDS["model_facts"]))
    return f'<li data-model="{model["served_name"]}"><b>{model["name"]}</b> {purpose}<small>{facts}</small></li>'
