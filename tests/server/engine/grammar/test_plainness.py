"""Which schemas are made into grammars at once, and which are tried in another process first."""

import time

import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar import trial
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.plainness import MOST_NAMES, MOST_NODES, MOST_TIMES, is_plain
from lingbi.engine.grammar.schemas import check_schema, target_of
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO
from tests.schemas import SCHEMAS, closed

TEXT = {"type": "string"}
DOUBLED = {f"d{number}": {"items": {"anyOf": [{"$ref": f"#/$defs/d{number + 1}"}] * 2}} for number in range(12)}
MOST_S = 0.05


NESTED = closed(
    place=closed(
        name=TEXT,
        age={"type": "integer", "minimum": 0, "maximum": 150},
        tags={"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": MOST_TIMES},
    )
)
REFERRED = {"$defs": {"item": NESTED}, "anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]}
LARGE = closed(**{f"name{number}": TEXT for number in range(MOST_NAMES)})


@pytest.fixture(scope="module")
def grammars():
    vocabulary = Vocabulary(Tokenizer(str(DEMO)), [1022])  # [UNUSED_TOKEN_145]
    return Grammars(lambda: vocabulary)


def plain(schema: dict) -> bool:
    check_schema(schema, "schema", True)
    return is_plain(schema, lambda reference: target_of(reference, schema)[0])


@pytest.mark.parametrize("schema", [{}, NESTED, REFERRED, LARGE, SCHEMAS["scene"], SCHEMAS["flat object"]])
def test_usual_schemas_are_plain_and_are_made_quickly_and_untried(schema, grammars, monkeypatch):
    assert plain(schema)
    monkeypatch.setattr(trial, "first_fault", lambda *_: pytest.fail("it was tried"))
    times = []
    for number in range(3):  # a busy machine makes one slow now and then
        began = time.process_time()
        grammars.find(Form("schema", schema | {"$comment": f"new {number}"}, "schema"))
        times.append(time.process_time() - began)
    assert min(times) < MOST_S, times


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 7},
        {"type": "integer", "minimum": 10**9},
        {"type": "number", "maximum": 0.123456789},
        closed(code={"type": "string", "pattern": "a+"}),
        closed(**{f"name{number}": TEXT for number in range(MOST_NAMES + 1)}),
        {"type": "array", "items": TEXT, "maxItems": MOST_TIMES + 1},
        {"enum": ["x" * 9000]},
        {"anyOf": [TEXT] * MOST_NODES},
        {"$defs": {"tree": closed(left={"anyOf": [{"$ref": "#/$defs/tree"}, TEXT]})}, "$ref": "#/$defs/tree"},
        {"$defs": DOUBLED | {"d12": TEXT}, "$ref": "#/$defs/d0"},
        {"additionalProperties": TEXT},
    ],
)
def test_what_may_cost_more_than_its_size_tells_is_not(schema):
    assert not plain(schema)


def test_what_is_wrong_with_a_plain_schema_is_told_with_its_place(grammars):
    bad = closed(name={"type": "string", "minLength": 3, "maxLength": 2})
    with pytest.raises(BadRequest, match="schema.properties.name"):
        grammars.find(Form("schema", bad, "schema"))
