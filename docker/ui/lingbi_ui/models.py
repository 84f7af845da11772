"""The models, for the page: those that lingbi can serve (models.json, see tests/ui/test_models.py), and those that are served."""

import functools
import html
import json
from pathlib import Path
from typing import Any

from lingbi_ui.words import WORDS, in_both

FILE = Path(__file__).parent / "models.json"
AWAY = "away"
Offer = dict[str, Any]  # of one model: id, name, phase, part (0 to 1), facts (a sentence in each language)


@functools.cache
def published() -> tuple[dict[str, Any], ...]:
    """The models that lingbi can serve."""
    return tuple(json.loads(FILE.read_text(encoding="utf-8")))


def models_list() -> str:
    """An HTML list of the models in both languages; page.js marks the one that answers."""
    return f'<ul class="models">{"".join(map(_item, published()))}</ul>'


def _item(model: dict[str, Any]) -> str:
    model = {name: html.escape(str(value)) for name, value in model.items()}
    purpose = in_both(model["purpose"], model["purpose_zh"])
    facts = in_both(*(text.format(**model) for text in WORDS["model_facts"]))
    return f'<li data-model="{model["served_name"]}"><b>{model["name"]}</b> {purpose}<small>{facts}</small></li>'


def short_name(name: str) -> str:
    """What people call a model; name: the one in the API."""
    return next((model["name"] for model in published() if model["served_name"] == name), name)


def offer_of(entry: dict[str, Any]) -> Offer:
    """What the page shows of an entry of /v1/models. Raises LookupError, TypeError or ValueError for other JSON."""
    told, name = entry.get("lingbi") or {}, str(entry["id"])
    return {
        "id": name,
        "name": short_name(name),
        "phase": str(told.get("state") or AWAY),
        "part": float(told.get("progress") or 0),
        "facts": _facts(told.get("image_tokens"), told.get("session_length")),
    }


def _facts(image_tokens: list[int] | None, session_length: int | None) -> list[str]:
    """A sentence on what a picture costs, in both languages; empty where nothing is told of that."""
    if not session_length:
        return ["", ""]
    if not image_tokens:
        return [text.format(session_length=session_length) for text in WORDS["model_holds"]]
    shown = "-".join(map(str, sorted({int(tokens) for tokens in image_tokens})))
    return [text.format(image_tokens=shown, session_length=session_length) for text in WORDS["model_costs"]]


def default_of(offers: list[Offer]) -> Offer:
    """The model that answers those who have chosen none. offers: at least one."""
    return next((offer for offer in offers if offer["phase"] == "ready"), offers[0])
