"""Which schemas are so plain that what their grammars cost is in proportion to their size, so that none need be tried first."""

import json
from collections.abc import Callable
from typing import Any

MOST_NODES = 256  # schemas, each counted as often as it is referred to
MOST_NAMES = 64  # of one object
MOST_BYTES = 8192  # of listed values, as JSON
MOST_TIMES = 64  # items of an array, or characters of a text, that are counted
LARGEST = 10**6  # bound of a number, which must be whole
TOLD = frozenset({"title", "description", "default", "examples", "deprecated", "$comment", "$defs", "definitions"})
COUNTED = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
BOUNDS = frozenset({"minimum", "maximum"})
LISTED = frozenset({"enum", "const"})
WALKED = frozenset({"properties", "items", "anyOf", "$ref"})
KEYWORDS = TOLD | COUNTED | BOUNDS | LISTED | WALKED | {"type", "required", "additionalProperties"}


def is_plain(root: dict[str, Any], target: Callable[[str], Any]) -> bool:
    """Whether a schema that was checked has few parts, and no keyword whose grammar may be large. One that contains itself
    is not plain. target: the schema of a reference."""
    left, seen = [root], 0
    while left:
        schema = left.pop()
        seen += 1
        if seen > MOST_NODES:
            return False
        if isinstance(schema, dict):
            if not _has_plain_keywords(schema):
                return False
            left += [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
            left += [schema["items"]] if "items" in schema else []
            left += [target(schema["$ref"])] if "$ref" in schema else []
    return True


def _has_plain_keywords(schema: dict[str, Any]) -> bool:
    listed = [schema[word] for word in LISTED & schema.keys()]
    return (
        schema.keys() <= KEYWORDS
        and len(schema.get("properties", ())) <= MOST_NAMES
        and isinstance(schema.get("additionalProperties", True), bool)
        and all(_is_whole(schema[word], MOST_TIMES) for word in COUNTED & schema.keys())
        and all(_is_whole(schema[word], LARGEST) for word in BOUNDS & schema.keys())
        and sum(len(json.dumps(values)) for values in listed) <= MOST_BYTES
    )


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and abs(value) <= most
