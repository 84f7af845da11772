"""What a form may not be is refused in a moment, with the place; what it may be is kept."""

import asyncio
import json
import random
import threading
import time

import numpy as np
import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar import trial
from lingbi.engine.grammar.forms import SOURCE_BYTES, Form
from lingbi.engine.grammar.grammars import KEPT_GRAMMARS, Grammars
from lingbi.engine.grammar.schemas import check_schema
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO
from tests.load.schema_suite import allows
from tests.schemas import CHOICES, REGEXES, SCHEMAS, closed, text, whole

STOP_ID = 1022  # [UNUSED_TOKEN_145]
COMPILE_S = 0.05
EVEN = whole(multipleOf=2)  # of which a trial is made
ENDLESS = closed(a={"$ref": "#"})
CATASTROPHIC = "((a{100}){100}){100}"
CHAIN = {"$ref": "#/$defs/0"} | {
    "$defs": {str(number): {"$ref": f"#/$defs/{number + 1}"} for number in range(999)} | {"999": {}}
}
TREE_OF_REFERENCES = {"$ref": "#/$defs/0"} | {
    "$defs": {
        str(number): {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/{number + 1}", "type": "object"} for side in "ab"},
        }
        for number in range(25)
    }
    | {"25": {"type": "object"}}
}


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(Tokenizer(str(DEMO)), [STOP_ID])


@pytest.fixture
def grammars(vocabulary):
    return Grammars(lambda: vocabulary)


def deep(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = closed(a=schema)
    return schema


BAD_SCHEMAS = {
    "large": ({"description": "x" * (1 << 20)}, "", "has 1048"),
    "endless": (ENDLESS, "", "no finite answer"),
    "endless at once": ({"$ref": "#"}, "", "no finite answer"),
    "endless in two steps": ({"$ref": "#/$defs/a", "$defs": {"a": closed(b={"$ref": "#/$defs/b"}), "b": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}}, "", "no finite answer"),
    "deep": (deep(40), ".properties.a" * 32 + ".additionalProperties", "nested more than"),
    "contradictory length": (closed(a={"type": "string", "minLength": 5, "maxLength": 2}), ".properties.a", "minLength (5)"),
    "contradictory bounds": ({"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 2}, "minItems": 1}, ".items", "minimum (5)"),
    "contradictory types": (closed(a={"allOf": [{"type": "string"}, {"type": "integer"}]}), ".properties.a", "incompatible"),
    "nothing of an enum": ({"enum": []}, "", "empty"),
    "false": (closed(a=False), "", "unsatisfiable"),
    "remote": ({"$ref": "http://127.0.0.1:9/schema.json"}, ".$ref", "nothing is fetched"),
    "remote by path": (closed(a={"$ref": "other.json#/a"}), ".properties.a.$ref", "nothing is fetched"),
    "nowhere": ({"$ref": "#/$defs/none"}, ".$ref", "leads nowhere"),
    "not": (closed(a={"not": {"type": "string"}}), ".properties.a.not", "cannot be held to"),
    "unique": ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, ".items.uniqueItems", "cannot be held to"),
    "oneOf that overlaps": (closed(a={"oneOf": [{"type": "integer"}, {"minimum": 2}]}), ".properties.a", "use anyOf"),
    "unknown format": (closed(a={"type": "string", "format": "colour"}), ".properties.a.format", "must be one of date"),
    "unknown type": (closed(a={"type": "text"}), ".properties.a.type", "must be one of array, boolean, integer, null, number, object, string, or a list of them (got 'text')"),
    "unknown type of several": ({"type": ["string", "nothing"]}, ".type", "(got \"['string', 'nothing']\")"),
    "no type": ({"type": []}, ".type", "(got '[]')"),
    "type that is an object": ({"type": {}}, ".type", "(got '{}')"),
    "look-ahead": (closed(a={"type": "string", "pattern": "(?=a)b"}), ".properties.a.pattern", "look-around"),
    "broken pattern": (closed(a={"type": "string", "pattern": "[a"}), ".properties.a.pattern", "unclosed"),
    "catastrophic pattern": (closed(a={"type": "string", "pattern": "((a{100}){100}){100}"}), ".properties.a.pattern", "too much work"),
    "patterns without number": ({"anyOf": [{"type": "string", "pattern": f"^a{number}$"} for number in range(40)]}, ".anyOf[32].pattern", "more than 32"),
    "pattern that is a number": (closed(a={"type": "string", "pattern": 5}), ".properties.a.pattern", "as a string"),
    "property that is a text": ({"properties": {"a": "string"}}, ".properties.a", "must be a schema"),
    "properties that are a list": ({"properties": ["a"]}, ".properties", "must be an object"),
    "anyOf that is an object": ({"anyOf": {}}, ".anyOf", "must be a list"),
    "options": ({"x-guidance": {"whitespace_flexible": True}}, ".x-guidance", "not served"),
    "list": ([], "", "must be a JSON Schema"),
    "many remainders": (closed(a={"type": "integer", "multipleOf": 1000003}), ".properties.a.multipleOf", "too many digits"),
    "many remainders together": ({"anyOf": [{"type": "integer", "multipleOf": number} for number in (997, 1009)]}, ".anyOf[1].multipleOf", "too many digits"),
    "remainders beyond 32 bits": ({"allOf": [{"type": "number", "multipleOf": 1e-7}, {"multipleOf": 9973}]}, ".allOf[1].multipleOf", "too many digits"),
    "many patterns of names": ({"patternProperties": {f"^a{number}$": {} for number in range(900)}}, ".patternProperties.^a32$", "more than 32"),
    "broken pattern of names": (closed(a={"patternProperties": {"[a": {}}}), ".properties.a.patternProperties.[a", "unclosed"),
    "catastrophic pattern of names": ({"patternProperties": {CATASTROPHIC: {}}}, f".patternProperties.{CATASTROPHIC}", "too much work"),
    "catastrophic pattern elsewhere": ({"properties": {"a": {"$ref": "#/x/y"}}, "x": {"y": {"type": "string", "pattern": CATASTROPHIC}}}, ".x.y.pattern", "too much work"),
    "patterns that are costly together": ({"type": "string", "allOf": [{"pattern": f".*a.{{{number}}}b"} for number in range(30)]}, "", "too much work"),
    "references that double": (TREE_OF_REFERENCES, "", "too much work"),
    "many objects in objects": ({"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}, f"b{number}": {"$ref": "#"}}} for number in range(150)]}, "", "too much work"),
    "format that is a list": ({"format": []}, ".format", "must be one of date"),
    "format that is an object": (closed(a={"format": {}}), ".properties.a.format", "must be one of date"),
    "large const": ({"const": 123456789012345678901234567890}, ".const", "beyond 9007199254740992"),
    "large number in an enum": ({"enum": [{"a": [(1 << 53) + 1]}]}, ".enum", "beyond 9007199254740992"),
    "large bound": (closed(a={"type": "integer", "maximum": 1 << 64}), ".properties.a.maximum", "beyond 9007199254740992"),
    "endless bound": (closed(a={"type": "number", "maximum": float("inf")}), "", "no JSON"),
    "bound that is a text": ({"type": "integer", "maximum": "5"}, ".maximum", "must be a number"),
    "half a pair": ({"const": "\ud800"}, "", "surrogate"),
    "control character": (closed(a={"enum": ["a\x01"]}), ".properties.a.enum", "control character"),
    "pattern of a control character": (closed(a={"type": "string", "pattern": "^a\\x01$"}), ".properties.a.pattern", "control character"),
    "names that may repeat": ({"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}}, ".minProperties", "come twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SCHEMAS)
def test_bad_schemas_are_refused_at_once_by_their_place(grammars, name):
    schema, place, reason = BAD_SCHEMAS[name]
    began = time.thread_time()
    with pytest.raises(BadRequest) as refused:
        grammars.find(Form("schema", schema, "guided_json"))
    assert time.thread_time() - began < 20 * COMPILE_S  # the first use of a process is slower
    assert refused.value.param == f"guided_json{place}" and reason in str(refused.value), refused.value
    assert str(refused.value).startswith(refused.value.param) and "\n" not in str(refused.value)


BAD_REGEXES = {"(?=a)b": "look-around", "[": "unclosed", "(a{1000}){1000}": "too much work", "((a{100}){100}){100}": "too much work", r"(a)\1": "backreference"}  # fmt: skip


@pytest.mark.parametrize("pattern", BAD_REGEXES)
def test_bad_regular_expressions_are_refused_with_the_reason(grammars, pattern):
    with pytest.raises(BadRequest) as refused:
        grammars.find(Form("regex", pattern, "guided_regex"))
    assert refused.value.param == "guided_regex" and BAD_REGEXES[pattern] in str(refused.value), refused.value
    is_costly = "too much work" in str(refused.value)
    assert is_costly != ("is no regular expression that can be held to" in str(refused.value)), refused.value


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a*)*b", "(x+x+)+y", "(.*a){30}", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_what_makes_other_engines_slow_does_no_harm(grammars, pattern):
    matcher = grammars.find(Form("regex", pattern, "guided_regex"))
    began = time.thread_time()
    for _ in range(200):
        matcher.take(int(matcher.allowed().argmax()))
    assert time.thread_time() - began < 2


def test_every_form_is_made_in_time(grammars):
    forms = [Form("schema", schema, "x") for schema in SCHEMAS.values()]
    forms += [Form("regex", pattern, "x") for pattern in REGEXES.values()] + [Form("choice", CHOICES, "x")]
    grammars.find(forms[0])
    times = []
    for form in forms:
        began = time.thread_time()
        grammars.find(form)
        times.append(time.thread_time() - began)
    assert sorted(times)[len(times) // 2] < COMPILE_S / 5 and max(times) < COMPILE_S, times


def test_what_cannot_be_held_to_is_passed_over_where_the_schema_is_not_strict(grammars):
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "string", "format": "colour"}, "x-note": 1}
    assert grammars.find(Form("schema", schema, "x", is_strict=False)).allowed().any()


def test_a_schema_that_may_contain_itself_is_taken(grammars):
    tree = closed(["name"], name={"type": "string"}, children={"type": "array", "items": {"$ref": "#"}})
    endless_or_not = {"anyOf": [ENDLESS, {"type": "null"}]}
    for schema in (tree, endless_or_not, {"type": "array", "items": {"$ref": "#"}}, closed([], a={"$ref": "#"})):
        assert grammars.find(Form("schema", schema, "x")).allowed().any()


def test_references_lead_to_any_place_of_the_schema(grammars):
    parts = {"a b": {"type": "integer"}, "c/d~": {"type": "integer"}, "e": [{"type": "integer"}]}
    for name in ("a%20b", "c~1d~0", "e/0"):
        schema = closed(a={"$ref": f"#/components/{name}"}) | {"components": parts}
        matcher = grammars.find(Form("schema", schema, "x"))
        assert allows(matcher, '{"a": 1}') and not allows(matcher, '{"a": "b"}')


def test_a_chain_of_references_is_followed_in_time(grammars):
    times = []
    for _ in range(3):  # a busy machine makes one slow now and then
        began = time.thread_time()
        check_schema(CHAIN, "x", is_strict=True)
        times.append(time.thread_time() - began)
    assert min(times) < 2 * COMPILE_S, times


def test_a_long_constant_is_made_in_time(grammars):
    began = time.thread_time()
    matcher = grammars.find(Form("schema", {"enum": [letter * 15000 for letter in "xy"]}, "x"))
    assert time.thread_time() - began < 20 * COMPILE_S and allows(matcher, json.dumps("y" * 15000))


def test_a_form_that_is_known_waits_for_no_new_one(grammars, monkeypatch):
    known, may_go_on = Form("choice", ["a"], "x"), threading.Event()
    grammars.find(known)
    monkeypatch.setattr(trial, "first_fault", lambda *_: may_go_on.wait(10) and None)

    async def ask_all():
        new = [
            asyncio.create_task(grammars.matcher(Form("schema", EVEN | whole(0, number), "x")))
            for number in range(1, 9)
        ]
        await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(grammars.matcher(known), 5)).allowed().any()
        assert not any(task.done() for task in new)
        may_go_on.set()
        await asyncio.gather(*new)

    asyncio.run(ask_all())


def test_a_form_that_was_refused_is_refused_without_another_trial(grammars, monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "first_fault", lambda *others: tried.append(others) or (0, "no"))
    for place in ("x", "x", "y", "y"):
        with pytest.raises(BadRequest, match=f"^{place}: no$") as refused:
            grammars.find(Form("schema", EVEN, place))
        assert refused.value.param == place
    assert len(tried) == 2


def test_long_texts_are_not_too_much_however_many_answers_there_were(grammars):
    schema = closed(**{name: text(0, 1000) for name in "abcdefgh"})
    for seed in range(4):
        draw = random.Random(seed)
        answer = {name: "".join(draw.choice("ab 中文é😀") for _ in range(990)) for name in "abcdefgh"}
        matcher = grammars.find(Form("schema", schema, "x"))
        for token in matcher.vocabulary(json.dumps(answer, ensure_ascii=False).encode()):
            assert matcher.allowed()[token] and matcher.take(token)
        assert matcher.may_end


def test_the_latest_grammars_are_kept_and_no_more(grammars, monkeypatch):
    made = []
    make = Grammars._made
    monkeypatch.setattr(Grammars, "_made", lambda self, form: made.append(form) or make(self, form))
    for _ in range(2):
        for number in range(KEPT_GRAMMARS):
            grammars.find(Form("choice", [str(number)], "x"))
    assert len(made) == KEPT_GRAMMARS
    for number in range(KEPT_GRAMMARS, 2 * KEPT_GRAMMARS):
        grammars.find(Form("choice", [str(number)], "x"))
    assert len(grammars._kept) == KEPT_GRAMMARS


def test_any_character_may_be_a_choice(grammars):
    characters = [chr(code) for code in (*range(0x300), *range(0x2000, 0x2070), 0xFEFF, 0xFFFD, 0x1F600)]
    matcher = grammars.find(Form("choice", characters, "x"))
    assert all(allows(matcher, character) for character in characters)


def test_matchers_of_one_grammar_know_nothing_of_each_other(grammars, vocabulary):
    first, second = (grammars.find(Form("choice", ["ab", "cd"], "x")) for _ in range(2))
    (a,) = vocabulary(b"a")
    assert first.take(a) and not first.allowed()[a] and second.allowed()[a]


def test_grammars_are_made_in_a_thread(grammars, monkeypatch):
    threads = []
    find = Grammars.find
    monkeypatch.setattr(
        Grammars, "find", lambda self, form: threads.append(threading.current_thread()) or find(self, form)
    )
    asyncio.run(grammars.matcher(Form("choice", ["a"], "x")))
    assert threads and threads[0] is not threading.main_thread()


def test_tokens_are_their_bytes_and_those_that_are_no_text_never_come(grammars, vocabulary):
    matcher = grammars.find(Form("regex", "(?s:.*)", "x"))
    allowed = matcher.allowed()
    assert not allowed[[0, 1]].any() and allowed[list(vocabulary.stop_ids)].all()
    reserved = [number for number, token in enumerate(vocabulary.tokens) if token.startswith(b"[UNUSED_TOKEN_")]
    assert len(reserved) > 2 and set(np.flatnonzero(allowed[reserved])) == {reserved.index(STOP_ID)}
    for part in ("中文 and\ttext ", " spaces  ", "❤", "\n"):
        assert vocabulary.text(vocabulary(part.encode())) == part.encode()


def test_bytes_of_a_character_come_in_their_order(grammars, vocabulary):
    matcher = grammars.find(Form("regex", "[\u4e00-\u9fff]", "x"))
    first, second, third = (vocabulary._byte_ids[byte] for byte in "鱻".encode())
    assert not matcher.allowed()[second]
    assert matcher.take(first) and matcher.take(second) and matcher.take(third) and matcher.may_end


def test_of_tokens_of_which_nothing_is_known_the_plainest_comes(vocabulary):
    def plainest(*texts):
        allowed = np.zeros(len(vocabulary.tokens), bool)
        allowed[[token for text in texts for token in vocabulary(text)]] = True
        return allowed

    allowed = plainest(b"a", b"]", b" the")
    assert vocabulary.tokens[vocabulary.plainest(allowed)] == b"]"
    allowed[STOP_ID] = True
    assert vocabulary.plainest(allowed) == STOP_ID
    assert vocabulary.tokens[vocabulary.plainest(plainest(b"a", b" the"))] == b"a"


def test_a_form_that_is_no_json_is_refused(grammars, monkeypatch):
    looped: dict = {}
    looped["items"] = looped
    with pytest.raises(BadRequest, match="nested too deep"):
        grammars.find(Form("schema", looped, "x"))
    assert SOURCE_BYTES < 1 << 20
