"""Each keyword of a schema allows what it should, and nothing else: whole answers, token by token."""

import itertools
import json

import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar import grammars as module
from lingbi.engine.grammar import trial
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO
from tests.load.schema_suite import STOP_ID, allows, judge_case
from tests.schemas import closed, some, text, whole

# keyword: a schema, instances that it allows, and others
KEYWORDS = {
    "type": ({"type": ["integer", "null"]}, [0, -7, None], ["0", 1.5, [], {}]),
    "enum": ({"enum": ["red", 1, None]}, ["red", 1, None], ["rad", 2, "1"]),
    "const": ({"const": {"a": [1, "中"]}}, [{"a": [1, "中"]}], [{"a": [1]}, {}]),
    "bounds": (whole(2, 11), [2, 9, 10, 11], [1, 12, 100, -2]),
    "exclusive bounds": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5, 0.01], [0, 1, 1.5]),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, [0, 7, 49], [1, 8, 50]),
    "lengths": (text(2, 3), ["ab", "中文字", '"\\'], ["a", "abcd", "中"]),
    "pattern": ({"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}, ["AB1", "XY007"], ["A1", "AB", "ab1", "AB1 "]),
    "format": ({"type": "string", "format": "ipv4"}, ["10.0.0.1"], ["10.0.0", "10.0.0.256", "a"]),
    "items": (some(whole(0, 9), 3, 1), [[0], [1, 2, 3]], [[], [1, 2, 3, 4], [10], ["1"]]),
    "prefixItems": ({"prefixItems": [{"const": "a"}, whole()], "items": False, "type": "array"}, [["a", 1]], [["b", 1], ["a", 1, 2]]),
    "required": (closed(["a"], a=whole(), b=whole()), [{"a": 1}, {"a": 1, "b": 2}], [{}, {"b": 2}]),
    "additionalProperties": (closed([], a=whole()), [{}, {"a": 1}], [{"b": 1}, {"a": 1, "b": 1}]),
    "other properties": ({"type": "object", "additionalProperties": whole()}, [{}, {"x": 1}], [{"x": "1"}]),
    "patternProperties": ({"type": "object", "patternProperties": {"^x": whole()}, "additionalProperties": False}, [{"x1": 1}], [{"y": 1}, {"x1": "a"}]),
    "anyOf": ({"anyOf": [whole(0, 9), {"type": "boolean"}]}, [5, True], [10, "5", None]),
    "oneOf": ({"oneOf": [closed(k={"const": 1}, a=whole()), closed(k={"const": 2})]}, [{"k": 1, "a": 3}, {"k": 2}], [{"k": 1}, {"k": 2, "a": 3}]),
    "allOf": ({"allOf": [whole(0, 50), whole(40, 99)]}, [40, 50], [39, 51]),
    "$ref": ({"$defs": {"n": whole(0, 9)}, "type": "array", "items": {"$ref": "#/$defs/n"}}, [[], [1, 9]], [[10], ["a"]]),
    "recursion": (closed(["v"], v=whole(0, 9), next={"$ref": "#"}), [{"v": 1}, {"v": 1, "next": {"v": 2}}], [{"next": {"v": 1}}, {"v": 1, "next": 1}]),
    "a name with escapes": (closed(**{'a"b\n': whole()}), [{'a"b\n': 1}], [{"ab": 1}]),
}  # fmt: skip


# Answers by schema that would be wrong: a name twice, a bound that is excluded
OPEN = {"properties": {"名称": {"type": "integer"}}, "required": ["名称"]}
PATTERNS = {"properties": {"a": whole()}, "patternProperties": {"^x": whole()}}
WRONG = [
    (OPEN, '{"名称": 1, "其他": "x"}', '{"名称": 1, "\\u540d\\u79f0": "x"}'),
    (OPEN, '{"名称": 1, "a\\n/": "x"}', '{"名称": 1, "a\\u000a": "x"}'),
    (PATTERNS, '{"a": 1, "x": 1, "y": "q"}', '{"a": 1, "\\u0061": "q"}'),
    (PATTERNS, '{"x1": 1}', '{"\\u0078": "q"}'),
    ({"properties": {"a\n\x7f": whole()}}, '{"a\\n\x7f": 1, "b": "q"}', '{"a\\n\\u007f": "q"}'),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.1}, "0.05", "0"),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.1}, "0.0001", "0.0"),
    ({"type": "number", "minimum": -0.1, "exclusiveMaximum": 0}, "-0.05", "-0"),
    ({"type": "number", "exclusiveMinimum": 3, "maximum": 3.5}, "3.25", "3"),
    ({"type": "number", "minimum": -3.5, "exclusiveMaximum": -3}, "-3.25", "-3"),
    ({"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 0.1}, "0.1", "0"),
    ({"allOf": [{"type": "number", "exclusiveMinimum": 0}, {"maximum": 0.1}]}, "0.01", "0"),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}, "1", "0"),
    ({"type": "object", "minProperties": 1}, '{"a": 1}', "{}"),
    (closed(["a"], a=whole()) | {"minProperties": 2, "additionalProperties": whole()}, '{"a": 1, "b": 2}', '{"a": 1, "a": 2}'),
]  # fmt: skip


@pytest.fixture(scope="module")
def grammars():
    vocabulary = Vocabulary(Tokenizer(str(DEMO)), [STOP_ID])
    return Grammars(lambda: vocabulary)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_allows_its_instances_and_no_others(grammars, keyword):
    schema, good, bad = KEYWORDS[keyword]
    tests = [
        {"description": str(valid), "data": data, "valid": valid}
        for valid in (True, False)
        for data in (good, bad)[not valid]
    ]
    judged = list(judge_case(grammars, keyword, {"description": keyword, "schema": schema, "tests": tests}))
    assert [each.outcome for each in judged] == ["right"] * len(tests), judged


def test_a_part_of_an_answer_is_none(grammars):
    schema, (_, instance), _ = KEYWORDS["$ref"]
    matcher = grammars.find(Form("schema", schema, "x"))
    whole_text = json.dumps(instance)
    assert allows(matcher, whole_text)
    assert not any(allows(matcher, whole_text[:end]) for end in range(1, len(whole_text)))
    assert not allows(matcher, whole_text + " ")


@pytest.mark.parametrize(("schema", "right", "wrong"), WRONG)
def test_no_name_comes_twice_and_no_bound_that_is_excluded(grammars, schema, right, wrong):
    matcher = grammars.find(Form("schema", schema, "x"))
    assert allows(matcher, right) and not allows(matcher, wrong)


NAMES = """type enum const properties required additionalProperties patternProperties minProperties maxProperties items
prefixItems additionalItems minItems maxItems anyOf oneOf allOf $ref $defs definitions pattern format minLength maxLength
minimum maximum exclusiveMinimum exclusiveMaximum multipleOf title default $id $schema $anchor not if x-guidance x-other"""
VALUES = [None, True, False, 0, -1, 2, 1.5, 10**30, 1e300, "", "a", "#", [], [1], [{}], ["a"], [["a"]], {}, {"a": 1}, {"a": {}}]  # fmt: skip


@pytest.mark.parametrize("keyword", NAMES.split())
def test_a_keyword_with_any_json_is_taken_or_refused(grammars, keyword, monkeypatch):
    monkeypatch.setattr(trial, "first_fault", lambda *_: None)  # it would find the same, in another process
    monkeypatch.setattr(module, "rehearse", lambda *_: None)
    for value, is_strict in itertools.product(VALUES, (True, False)):
        for schema in ({keyword: value}, closed(a={"minimum": 1, "minItems": 1, "minProperties": 1, keyword: value})):
            try:
                assert grammars.find(Form("schema", schema, "x", is_strict)).allowed().any()
            except BadRequest as refused:
                assert refused.param.startswith("x") and str(refused).startswith(refused.param)
