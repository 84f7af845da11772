"""The JSON Schema of all settings, from the classes that declare them, compose.yaml, and the translations.

Besides the keywords of JSON Schema (draft 2020-12) a setting has ``x-part``: server, page, gateway, or deployment (the
machine's containers); and where there is such a thing ``x-default``: the default in words, where machine or model decide
it; ``x-option``: its option of scripts/up; ``x-fixed``: true where the containers fix it, so that .env cannot;
``x-chinese``: the description and the default in words.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lingbi import deployment
from lingbi import settings as server
from lingbi_gateway import settings as gateway
from lingbi_ui import settings as page

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "settings/schema.json"
PARTS = ROOT / "docker/server/lingbi/launch/parts.json"
CHINESE = ROOT / "settings/chinese.json"
HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Settings of lingbi",
    "description": "Made by scripts/settings. Types are those of the values once read; in the environment all is text.",
    "type": "object",
}
KEYWORDS = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "default",
)
ORDER = (*KEYWORDS, "description", "x-part", "x-default", "x-option", "x-fixed", "x-chinese")

Property = dict[str, Any]  # the schema of one setting


class Untranslated(Exception):
    """settings/chinese.json and the settings do not fit each other; says where."""


def schema() -> dict[str, Any]:
    """The schema as it should be. Raises Untranslated."""
    declared = {
        **of_pydantic(server.Settings, server.PREFIX, "server"),
        **of_pydantic(page.Settings, page.PREFIX, "page"),
        **of_gateway(),
        **of_deployment(),
    }
    for name in places_of_containers():
        declared[name]["x-fixed"] = True
    translated = with_chinese(declared, json.loads(CHINESE.read_text(encoding="utf-8")))
    return (
        HEAD
        | {"properties": {name: in_order(found) for name, found in translated.items()}}
        | {"additionalProperties": False}
    )


def of_other_parts(found: dict[str, Any]) -> dict[str, Property]:
    """What the server's image has to know of the settings of other parts: their types and descriptions."""
    kept = (*KEYWORDS, "description")
    return {
        name: {key: value for key, value in item.items() if key in kept and key != "default"}
        for name, item in found["properties"].items()
        if item["x-part"] != "server"
    }


def text(found: dict[str, Any]) -> str:
    """A schema as it stands in its file."""
    return json.dumps(found, ensure_ascii=False, indent=2) + "\n"


def of_pydantic(model: type[BaseModel], prefix: str, part: str) -> dict[str, Property]:
    """{name: property} of a pydantic class."""
    fields = model.model_json_schema()["properties"]
    return {prefix + name.upper(): without_null(found) | {"x-part": part} for name, found in fields.items()}


def without_null(found: Property) -> Property:
    """A property without what says that it may be null: a setting without a value is not there at all."""
    kind: Property = next((choice for choice in found.get("anyOf", []) if choice != {"type": "null"}), {})
    left = {key: value for key, value in found.items() if key not in ("anyOf", "title")}
    if "x-default" in left or left["default"] is None:
        del left["default"]
    return kind | left


def of_gateway() -> dict[str, Property]:
    """{name: property} of the gateway's class, whose image has no pydantic."""
    found = {}
    for item in dataclasses.fields(gateway.Settings):
        told = item.metadata
        default = item.default if isinstance(item.default, int) else told["default"]
        known = {"default": default} if "words" not in told else {"x-default": told["words"]}
        option = {"x-option": told["option"]} if "option" in told else {}
        meaning = {"description": told["help"], "x-part": "gateway"}
        found[gateway.PREFIX + item.name.upper()] = kind_of(told["read"]) | known | option | meaning
    return found


def kind_of(read: Callable[[str], Any]) -> Property:
    """What one of the gateway's readers accepts."""
    match read:
        case gateway.Whole(least=least, most=most):
            return {"type": "integer", "minimum": least, "maximum": most}
        case gateway.Choice(words=words):
            return {"type": "string", "enum": list(words)}
    return {"type": "string"}


def of_deployment() -> dict[str, Property]:
    """{name: property} of the settings of a machine's containers."""
    found = {}
    for setting in deployment.SETTINGS:
        known: Property = {"x-default": setting.words} if setting.words else {"default": setting.default}
        meaning: Property = {"type": "string", "description": setting.help, "x-part": "deployment"}
        pattern = {"pattern": setting.pattern} if setting.pattern else {}
        found[deployment.PREFIX + setting.name] = meaning | pattern | (known if known != {"default": None} else {})
    return found


def places_of_containers() -> list[str]:
    """The server's settings that compose.yaml fixes, or compose.secrets.yaml in its place."""
    places = compose_file("compose.yaml")["x-places"]
    return list(places | compose_file("compose.secrets.yaml")["services"]["server"]["environment"])


def compose_file(name: str) -> Any:
    """A compose file; Compose's own tags are not read."""
    return yaml.safe_load(re.sub(r"!(reset|override)\b", "", (ROOT / name).read_text(encoding="utf-8")))


def with_chinese(declared: dict[str, Property], chinese: dict[str, str]) -> dict[str, Property]:
    """The properties with the translations of what people read. Raises Untranslated, also for what is left over."""
    used = {found[key] for found in declared.values() for key in ("description", "x-default") if key in found}
    if missing := sorted(used - chinese.keys()):
        raise Untranslated(f"settings/chinese.json has no translation of {missing[0]!r}; add it")
    if left_over := sorted(chinese.keys() - used):
        raise Untranslated(f"settings/chinese.json translates {left_over[0]!r}, which no setting says; remove it")
    return {name: found | {"x-chinese": chinese_of(found, chinese)} for name, found in declared.items()}


def chinese_of(found: Property, chinese: dict[str, str]) -> dict[str, str]:
    default = {"default": chinese[found["x-default"]]} if "x-default" in found else {}
    return {"description": chinese[found["description"]]} | default


def in_order(found: Property) -> Property:
    """A property with its keywords in the order in which people look for them. Raises ValueError for another keyword."""
    return {key: found[key] for key in sorted(found, key=ORDER.index)}
