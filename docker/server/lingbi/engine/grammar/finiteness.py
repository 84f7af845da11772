"""Whether a schema has a finite answer, as far as that depends on schemas that contain themselves."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

Group = list[Any]  # schemas of which an answer follows at least one


def has_finite_answer(root: Any, schemas: Iterable[Any], target: Callable[[str], Any]) -> bool:
    """Whether a finite answer exists; the time is in proportion to the schemas' size.

    schemas: all within the root, itself included, and all that they refer to; target: the schema of a reference.
    """
    watchers: dict[int, list[tuple[int, Group]]] = defaultdict(list)  # by schema: who waits for it, and in which group
    missing: dict[int, int] = {}  # by schema: groups of which no member is known to have a finite answer
    ending: list[int] = []
    for schema in schemas:
        if not isinstance(schema, bool) and id(schema) not in missing:
            groups = [group for group in _groups(schema, target) if not any(isinstance(each, bool) for each in group)]
            missing[id(schema)] = len(groups)
            for group in groups:
                for member in group:
                    watchers[id(member)].append((id(schema), group))
            if not groups:
                ending.append(id(schema))
    settled: set[int] = set()  # groups
    while ending:
        for owner, group in watchers[ending.pop()]:
            if id(group) not in settled:
                settled.add(id(group))
                missing[owner] -= 1
                if not missing[owner]:
                    ending.append(owner)
    return isinstance(root, bool) or not missing[id(root)]


def _groups(schema: dict[str, Any], target: Callable[[str], Any]) -> list[Group]:
    """What an answer must follow: of each group one member."""
    needed = [*_required(schema), *_items(schema), *schema.get("allOf", ())]
    if "$ref" in schema:
        needed.append(target(schema["$ref"]))
    return [[each] for each in needed] + [list(schema[word]) for word in ("anyOf", "oneOf") if schema.get(word)]


def _required(schema: dict[str, Any]) -> list[Any]:
    """The schemas of the properties that an answer must have."""
    kind, required = schema.get("type", "object"), schema.get("required", ())
    if kind != "object" or not isinstance(required, list):
        return []
    names = {name for name in required if isinstance(name, str)}
    return [inner for name, inner in schema.get("properties", {}).items() if name in names]


def _items(schema: dict[str, Any]) -> list[Any]:
    """The schemas of the entries that an answer must have."""
    least, prefix = schema.get("minItems", 0), schema.get("prefixItems", [])
    if schema.get("type", "array") != "array" or not isinstance(least, int) or least < 1:
        return []
    rest = [schema["items"]] if "items" in schema and least > len(prefix) else []
    return [*prefix[:least], *rest]
