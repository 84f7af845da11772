"""Schemas and other forms of answers, bounded so that also a model that says nothing sensible comes to their end."""

import re

import jsonschema

from lingbi.smoke import form_checks

NAME = {"type": "string", "maxLength": 12}
COLOUR = {"enum": ["red", "green", "blue", "红", "绿色", "#00f"]}
POINT = {
    "type": "array",
    "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 999}] * 2,
    "items": False,
    "minItems": 2,
}
EMAIL = r"^[a-z]{1,8}@[a-z]{1,8}\.(com|cn)$"


def closed(required=None, **properties) -> dict:
    """An object with these properties and no others; required: which it must have, None for all."""
    return form_checks.closed(properties) | ({} if required is None else {"required": required})


def text(least: int = 0, most: int = 12, **others) -> dict:
    return {"type": "string", "minLength": least, "maxLength": most} | others


def whole(least: int = 0, most: int = 999, **others) -> dict:
    return {"type": "integer", "minimum": least, "maximum": most} | others


def some(items: dict, most: int = 3, least: int = 0) -> dict:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


SCENE = closed(objects=some(closed(colour=COLOUR, shape=NAME, position={"enum": ["left", "right", "中间"]}), 3, 1))
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": closed(["name"], name=text(1, 4), left={"$ref": "#/$defs/leaf"}), "leaf": closed(value=whole())},
}
LIST = {
    "$ref": "#/$defs/list",
    "$defs": {"list": {"anyOf": [{"type": "null"}, closed(head=whole(0, 9), tail={"type": "null"})]}},
}
SCHEMAS = {
    "string": text(),
    "string of a length": text(3, 5),
    "Chinese property": closed(名称=text(1, 6), 数量=whole(0, 99)),
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "integer": whole(-50, 50),
    "only negative": whole(-9, -1),
    "exclusive bounds": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 9},
    "number": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    "enum of texts": COLOUR,
    "enum of kinds": {"enum": [1, "one", None, True, [1, 2], {"a": "b"}]},
    "const": {"const": {"version": 2, "名": "常量"}},
    "type list": {"type": ["boolean", "null"]},
    "empty object": closed(),
    "flat object": closed(name=NAME, age=whole(0, 150), is_member={"type": "boolean"}),
    "optional properties": closed(["b"], a=NAME, b=whole(), c={"type": "null"}),
    "no property required": closed([], a=whole(0, 9), b=whole(0, 9)),
    "nested object": closed(outer=closed(inner=closed(value=whole()))),
    "array": some(whole(), 4),
    "array with a least length": some(COLOUR, 4, 2),
    "array of arrays": some(some(whole(0, 9), 2, 1), 2, 1),
    "array of objects": some(closed(x=whole(), y=whole()), 3),
    "tuple": POINT,
    "tuple with a rest": {"type": "array", "prefixItems": [COLOUR], "items": whole(0, 9), "minItems": 1, "maxItems": 3},
    "anyOf": {"anyOf": [closed(kind={"const": "a"}, a=whole()), closed(kind={"const": "b"}, b=NAME)]},
    "oneOf": {"oneOf": [{"type": "boolean"}, whole()]},
    "allOf": {"allOf": [whole(0, 100), whole(50, 200)]},
    "nullable": closed(value={"anyOf": [whole(), {"type": "null"}]}),
    "reference": closed(first={"$ref": "#/$defs/colour"}, second={"$ref": "#/$defs/colour"})
    | {"$defs": {"colour": COLOUR}},
    "tree": TREE,
    "list by reference": LIST,
    "definitions of draft 7": {"definitions": {"n": whole(0, 9)}} | closed(n={"$ref": "#/definitions/n"}),
    "pattern": {"type": "string", "pattern": EMAIL},
    "pattern of Chinese": {"type": "string", "pattern": "^[\u4e00-\u9fff]{2,4}$"},
    "pattern and length": {"type": "string", "pattern": "^[ab]+$", "minLength": 2, "maxLength": 4},
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^x[0-9]$": whole()},
        "required": ["x1"],
        "properties": {"x1": whole()},
        "additionalProperties": False,
        "maxProperties": 2,
    },
    "date": {"type": "string", "format": "date"},
    "uuid": closed(id={"type": "string", "format": "uuid"}),
    "escapes": closed(**{'quote"slash\\\u0001': {"const": 'a"b\\c\n\t/'}}),
    "scene": SCENE,
}
REGEXES = {
    "phone": r"\+86 1[3-9][0-9]{9}",
    "either": r"(yes|no)(, (because|除非) [a-z]{1,5})?",
    "plate": r"[京沪粤][A-Z]·[A-Z0-9]{5}",
}
CHOICES = ["red", "reddish brown", "深蓝", "深蓝色", '"quoted"']


def schema_fault(schema: dict, value) -> str | None:
    """What is wrong with a value by another validator; None where nothing is."""
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    return next((error.message for error in validator.iter_errors(value)), None)


def regex_fault(pattern: str, answer: str) -> str | None:
    return None if re.fullmatch(pattern, answer) else f"{answer!r} does not match {pattern}"
