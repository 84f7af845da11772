"""The models that lingbi serves, for the page: models.json holds the server's catalogue (tests/ui/test_models.py)."""

import html
import json
from pathlib import Path

from lingbi_ui.words import CHINESE, ENGLISH, WORDS

FILE = Path(__file__).parent / "models.json"


def models_list() -> str:
    """An HTML list of the models in both languages; page.js marks the one that answers."""
    return f'<ul class="models">{"".join(map(_item, json.loads(FILE.read_text(encoding="utf-8"))))}</ul>'


def _item(model: dict) -> str:
    lines = (
        _both(model["purpose"], model["purpose_zh"]),
        _both(*(text.format(**model) for text in WORDS["model_facts"])),
    )
    name = html.escape(model["name"])
    return (
        f'<li data-model="{html.escape(model["served_name"])}"><b>{name}</b> {lines[0]}<small>{lines[1]}</small></li>'
    )


def _both(english: str, chinese: str) -> str:
    return f'<span lang="{ENGLISH}">{html.escape(english)}</span><span lang="{CHINESE}">{html.escape(chinese)}</span>'
