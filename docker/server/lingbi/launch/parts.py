"""Judges the settings of the page, the gateway and the machine's containers, which share one .env with the server's.

The container that fetches runs before all others, so what is wrong there is told by its log, whichever part it is of.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lingbi.deployment import is_another_parts
from lingbi.errors import ConfigurationError
from lingbi.settings import remedy

FILE = Path(__file__).with_name("parts.json")  # scripts/settings writes it from the classes that declare them
KINDS: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "string": str}
BOUNDS = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "pattern": "pattern"}


def check_parts(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigurationError for a setting of another part that is unknown, or whose value it would not take.

    What only the part itself can judge, such as a list of networks, is left to it.
    """
    known = json.loads(FILE.read_text(encoding="utf-8"))
    for name in sorted(filter(is_another_parts, environment)):
        value = environment[name]
        if name not in known:
            raise ConfigurationError(f"{name}={value!r}: there is no such setting; {remedy(name, known)}")
        if fault := fault_of(value, known[name]):
            raise ConfigurationError(f"{name}={value!r}: {fault} ({known[name]['description']})")


def fault_of(value: str, kind: Mapping[str, Any]) -> str:
    """What is wrong with a value by JSON Schema's keywords for its setting, or an empty string."""
    accepted: Any = Literal[tuple(kind["enum"])] if "enum" in kind else KINDS[kind["type"]]
    bounds: dict[str, Any] = {BOUNDS[key]: kind[key] for key in BOUNDS.keys() & kind.keys()}
    bounded: Any = Annotated[accepted, Field(**bounds)]
    try:
        TypeAdapter(bounded).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["msg"].lower()
    return ""
