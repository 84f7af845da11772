"""All settings, from settings/schema.json, which scripts/settings generates from their declarations.

Ansible loads this file by its path, so it imports nothing from host/.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).resolve().parents[1] / "settings/schema.json"


class Setting(NamedTuple):
    """One setting. part: server, page, gateway or deployment; default: as in the environment, or None;
    is_fixed: the containers set it, so .env cannot; pattern: a regular expression that the value has to match."""

    name: str
    part: str
    default: str | None
    help: str
    is_fixed: bool
    pattern: str = ""


def declared(*parts: str) -> list[Setting]:
    """The settings of some parts, or of all, in the order in which they are declared."""
    properties = json.loads(FILE.read_text(encoding="utf-8"))["properties"]
    settings = [setting_of(name, found) for name, found in properties.items()]
    return [setting for setting in settings if not parts or setting.part in parts]


def default_of(name: str) -> str:
    """The default of a setting, as in the environment; empty if it has none."""
    return next(setting.default or "" for setting in declared() if setting.name == name)


def fits(name: str, value: str) -> bool:
    """Whether a value matches the pattern of its setting; a setting without a pattern takes all."""
    pattern = next(setting.pattern for setting in declared() if setting.name == name)
    return not pattern or re.fullmatch(pattern, value) is not None


def setting_of(name: str, found: dict[str, Any]) -> Setting:
    default = found.get("default")
    if isinstance(default, bool):
        default = str(default).lower()
    shown = None if default is None else str(default)
    return Setting(
        name, found["x-part"], shown, found["description"], found.get("x-fixed", False), found.get("pattern", "")
    )


def remedy(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not a known setting."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"
