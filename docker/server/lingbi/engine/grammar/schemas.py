"""What is wrong with a JSON Schema before a grammar is made of it, with the place that is wrong.

The keywords are those of https://json-schema.org/draft/2020-12, and `definitions` and `additionalItems` of earlier drafts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lingbi.api_errors import BadRequest

IN_MAPPINGS = ("properties", "patternProperties", "$defs", "definitions")  # keywords with schemas by name
IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "additionalItems")
UNSERVED = frozenset(
    "not if then else uniqueItems contains minContains maxContains propertyNames dependentRequired dependentSchemas "
    "dependencies unevaluatedItems unevaluatedProperties $dynamicRef $recursiveRef".split()
)
FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid uri".split())
DEPTH = 32  # a grammar of more is refused by llguidance, whose parser recurses
OPTIONS = "x-guidance"  # a keyword by which llguidance would take options from a schema


@dataclass(frozen=True)
class Node:
    """A schema within a schema; place: in the request; depth: schemas around it."""

    schema: Any
    place: str
    depth: int


def check_schema(schema: Any, place: str, is_strict: bool) -> list[Node]:
    """All schemas within a schema, itself first. Raises BadRequest for the first that cannot be held to.

    is_strict: refuse keywords and formats that cannot be held to; otherwise they are passed over.
    """
    if not isinstance(schema, dict):
        raise _refusal(place, f"must be a JSON Schema, which is an object (got {str(schema)[:60]!r})")
    found = list(_nodes(schema, place))
    for node in found:
        if isinstance(node.schema, dict):
            _check_references(node, schema)
            if is_strict:
                _check_keywords(node)
    if not _can_end(schema, found):
        raise _refusal(
            place, "has no finite answer: what it requires contains itself without end; make a part optional"
        )
    return found


def _nodes(schema: Any, place: str) -> Iterator[Node]:
    """A schema and all within it, without the recursion that a deep one would need."""
    left = [Node(schema, place, 0)]
    while left:
        node = left.pop()
        if not isinstance(node.schema, dict | bool):
            raise _refusal(node.place, f"must be a schema: an object, true or false (got {str(node.schema)[:60]!r})")
        if node.depth > DEPTH:
            raise _refusal(node.place, f"is nested more than {DEPTH} schemas deep; use $ref or a flatter schema")
        yield node
        if isinstance(node.schema, dict):
            left += _children(node)


def _children(node: Node) -> list[Node]:
    schema, place = node.schema, node.place
    pairs = [(f"{place}.{word}", schema[word]) for word in SINGLE if word in schema]
    for word in IN_MAPPINGS:
        if word in schema:
            pairs += [(f"{place}.{word}.{name}", inner) for name, inner in _mapping(schema[word], f"{place}.{word}")]
    for word in IN_LISTS:
        if word in schema:
            pairs += [
                (f"{place}.{word}[{number}]", inner) for number, inner in _listed(schema[word], f"{place}.{word}")
            ]
    return [Node(inner, where, node.depth + 1) for where, inner in reversed(pairs)]


def _mapping(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise _refusal(place, f"must be an object of schemas by name (got {str(value)[:60]!r})")
    yield from value.items()


def _listed(value: Any, place: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(value, list):
        raise _refusal(place, f"must be a list of schemas (got {str(value)[:60]!r})")
    yield from enumerate(value)


def _check_references(node: Node, root: Mapping[str, Any]) -> None:
    """Refuse references to what is not in this schema, which is never fetched."""
    if OPTIONS in node.schema:
        raise _refusal(f"{node.place}.{OPTIONS}", "is not served; leave it out")
    reference = node.schema.get("$ref")
    if reference is None:
        return
    place = f"{node.place}.$ref"
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise _refusal(place, f"must be # or begin with #/, for nothing is fetched (got {str(reference)[:60]!r})")
    if _target(reference, root) is None:
        raise _refusal(place, f"leads nowhere (got {reference[:60]!r}); name a place in this schema")


def _target(reference: str, root: Any) -> Any:
    """The schema that a reference within a schema means, or None."""
    found = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _check_keywords(node: Node) -> None:
    unserved = next((word for word in node.schema if word in UNSERVED), None)
    if unserved:
        raise _refusal(f"{node.place}.{unserved}", "cannot be held to; leave it out and check it in the answer")
    name = node.schema.get("format")
    if name is not None and name not in FORMATS:
        raise _refusal(
            f"{node.place}.format", f"must be one of {', '.join(sorted(FORMATS))}, or left out (got {str(name)[:60]!r})"
        )


def _can_end(root: Mapping[str, Any], nodes: list[Node]) -> bool:
    """Whether a finite answer exists, as far as that depends on schemas that contain themselves."""
    ending: set[int] = set()
    is_growing = True
    while is_growing:
        before = len(ending)
        for node in reversed(nodes):  # what is within a schema comes after it, so one pass settles all but references
            if _ends(node.schema, root, ending):
                ending.add(id(node.schema))
        is_growing = len(ending) > before
    return id(root) in ending


def _ends(schema: Any, root: Mapping[str, Any], ending: set[int]) -> bool:
    """Whether a schema has a finite answer, if those in `ending` have one."""
    if isinstance(schema, bool) or id(schema) in ending:
        return True
    needed = [*_required(schema), *_items(schema), *schema.get("allOf", ())]
    if "$ref" in schema:
        needed.append(_target(schema["$ref"], root))
    choices = [schema[word] for word in ("anyOf", "oneOf") if schema.get(word)]
    return all(map(lambda inner: _known(inner, ending), needed)) and all(
        any(_known(inner, ending) for inner in choice) for choice in choices
    )


def _known(schema: Any, ending: set[int]) -> bool:
    return isinstance(schema, bool) or id(schema) in ending


def _required(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of the properties that an answer must have."""
    kind, required = schema.get("type", "object"), schema.get("required", ())
    if kind != "object" or not isinstance(required, list):
        return []
    return [inner for name, inner in schema.get("properties", {}).items() if name in required]


def _items(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of the entries that an answer must have."""
    least, prefix = schema.get("minItems", 0), schema.get("prefixItems", [])
    if schema.get("type", "array") != "array" or not isinstance(least, int) or least < 1:
        return []
    rest = [schema["items"]] if "items" in schema and least > len(prefix) else []
    return [*prefix[:least], *rest]


def _refusal(place: str, sentence: str) -> BadRequest:
    return BadRequest(f"{place}: {sentence}", place)
