"""What is wrong with a JSON Schema before a grammar is made of it, with the place that is wrong.

The keywords are those of https://json-schema.org/draft/2020-12, and `definitions` and `additionalItems` of earlier drafts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lingbi.engine.grammar.finiteness import has_finite_answer
from lingbi.engine.grammar.keywords import check_keywords, check_multiples, refusal

IN_MAPPINGS = ("properties", "patternProperties", "$defs", "definitions")  # keywords with schemas by name
IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "additionalItems")
DEPTH = 32  # a grammar of more is refused by llguidance, whose parser recurses
OPTIONS = "x-guidance"  # a keyword by which llguidance would take options from a schema


@dataclass(frozen=True)
class Node:
    """A schema within a schema; place: in the request; depth: schemas around it."""

    schema: Any
    place: str
    depth: int


def check_schema(schema: Any, place: str, is_strict: bool) -> list[Node]:
    """All schemas within a schema, itself first, and those that it refers to. Raises BadRequest for what is wrong.

    is_strict: refuse keywords and formats that cannot be held to; otherwise they are passed over.
    """
    if not isinstance(schema, dict):
        raise refusal(place, f"must be a JSON Schema, which is an object (got {str(schema)[:60]!r})")
    found = _all_nodes(schema, place)
    for node in found:
        if isinstance(node.schema, dict):
            check_keywords(node.schema, node.place, is_strict)
    check_multiples(
        {
            f"{node.place}.multipleOf": node.schema["multipleOf"]
            for node in found
            if isinstance(node.schema, dict) and "multipleOf" in node.schema
        }
    )
    if not has_finite_answer(
        schema, (node.schema for node in found), lambda reference: target_of(reference, schema)[0]
    ):
        raise refusal(place, "has no finite answer: what it requires contains itself without end; make a part optional")
    return found


def _all_nodes(root: dict[str, Any], place: str) -> list[Node]:
    """A schema, all within it, and those that stand where no schemas are looked for but are referred to."""
    found = list(_nodes(Node(root, place, 0)))
    known = {id(node.schema) for node in found}
    for node in found:  # which grows meanwhile
        if isinstance(node.schema, dict):
            target, path = _referred(node, root)
            if isinstance(target, dict) and id(target) not in known:
                further = list(_nodes(Node(target, place + path, 1)))
                known |= {id(each.schema) for each in further}
                found += further
    return found


def _nodes(first: Node) -> Iterator[Node]:
    """A schema and all within it, without the recursion that a deep one would need."""
    left = [first]
    while left:
        node = left.pop()
        if not isinstance(node.schema, dict | bool):
            raise refusal(node.place, f"must be a schema: an object, true or false (got {str(node.schema)[:60]!r})")
        if node.depth > DEPTH:
            raise refusal(node.place, f"is nested more than {DEPTH} schemas deep; use $ref or a flatter schema")
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
        raise refusal(place, f"must be an object of schemas by name (got {str(value)[:60]!r})")
    yield from value.items()


def _listed(value: Any, place: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(value, list):
        raise refusal(place, f"must be a list of schemas (got {str(value)[:60]!r})")
    yield from enumerate(value)


def _referred(node: Node, root: Mapping[str, Any]) -> tuple[Any, str]:
    """The schema that a schema refers to, and its path; None where it refers to none. Raises BadRequest for what is not
    in this schema, because nothing is fetched."""
    if OPTIONS in node.schema:
        raise refusal(f"{node.place}.{OPTIONS}", "is not served; leave it out")
    if "$ref" not in node.schema:
        return None, ""
    place, reference = f"{node.place}.$ref", node.schema["$ref"]
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise refusal(place, f"must be # or begin with #/, for nothing is fetched (got {str(reference)[:60]!r})")
    target, path = target_of(reference, root)
    if target is None:
        raise refusal(place, f"leads nowhere (got {reference[:60]!r}); name a place in this schema")
    return target, path


def target_of(reference: str, root: Any) -> tuple[Any, str]:
    """The schema that a reference within a schema means, or None, and its path in the schema."""
    found, path = root, ""
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found, path = found[int(name)], f"{path}[{name}]"
        elif isinstance(found, dict) and name in found:
            found, path = found[name], f"{path}.{name}"
        else:
            return None, path
    return (found if isinstance(found, dict | bool) else None), path
