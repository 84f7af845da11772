"""Answers of tokens that were drawn at random, for schemas that were: each is one that another validator takes."""

import json
import random

import numpy as np
import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar import trial
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO
from tests.load.schema_suite import STOP_ID
from tests.schemas import schema_fault

SEEDS, ANSWERS = 240, 3
LEAST_TAKEN = 0.5  # of the schemas; others contradict themselves, or have a oneOf that overlaps
AT_RANDOM, MOST = 50, 400  # tokens; after the first, the plainest come, which end the answer soon
NAMES = ("a", "名称", "b\n", "x1", "x/2", "\x7f")
HINTS = ("0", "-0", "1", "3", '"a"', '"x1"', '"\\u0061"', '"\\u540d\\u79f0"', '"\\u0078')  # what mistakes would show in
BOUNDS = (-3, -2.5, -1, -0.1, 0, 0, 0, 0.1, 0.25, 1, 1.5, 3)


class Drawer:
    """Draws schemas; each of a few levels."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def is_drawn(self, share: float) -> bool:
        return self.random.random() < share

    def schema(self, levels: int = 3):
        kinds = [self.number, self.text, self.value]
        if levels:
            kinds += [self.mapping, self.mapping, self.sequence, self.joint]
        return self.random.choice(kinds)(levels - 1)

    def number(self, _):
        drawn = {"type": self.random.choice(["integer", "number"])}
        for word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if self.is_drawn(0.35):
                drawn[word] = self.random.choice(BOUNDS)
        return drawn | ({"multipleOf": self.random.choice([0.25, 2, 7])} if self.is_drawn(0.2) else {})

    def text(self, _):
        drawn = {"type": "string"} | ({"minLength": self.random.randrange(4)} if self.is_drawn(0.3) else {})
        if self.is_drawn(0.3):
            drawn["pattern"] = self.random.choice(["^[a-c]+$", "x", "^[^a]{2}", "[0-9]$"])
        return drawn | ({"maxLength": self.random.randrange(3, 9)} if self.is_drawn(0.5) else {})

    def value(self, _):
        return {"enum": self.random.sample([1, -2.5, "a", "名\n", None, True, [1, "b"], {"a": 1, "名称": "c"}], 3)}

    def mapping(self, levels):
        names = self.random.sample(NAMES, self.random.randrange(4))
        drawn = {"type": "object", "properties": {name: self.schema(levels) for name in names}}
        drawn["required"] = [name for name in names if self.is_drawn(0.7)]
        if self.is_drawn(0.7):
            drawn["additionalProperties"] = self.random.choice([True, False, self.schema(levels)])
        if self.is_drawn(0.3):
            drawn["patternProperties"] = {"^x": self.schema(levels)}
        for word in ("minProperties", "maxProperties"):
            if self.is_drawn(0.2):
                drawn[word] = self.random.randrange(4)
        return drawn

    def sequence(self, levels):
        drawn = {"type": "array", "items": self.schema(levels), "maxItems": self.random.randrange(1, 4)}
        return drawn | ({"prefixItems": [self.schema(levels)]} if self.is_drawn(0.3) else {})

    def joint(self, levels):
        parts = [self.schema(levels), self.random.choice([self.schema, self.mapping])(levels)]
        return {self.random.choice(["anyOf", "allOf", "oneOf"]): parts}


def walk(matcher, draw: random.Random) -> str | None:
    """An answer; None where the tokens did not suffice."""
    vocabulary = matcher.vocabulary
    ids, hinted = [], []
    while not matcher.must_end and len(ids) < MOST:
        allowed = matcher.allowed()
        assert allowed.any(), vocabulary.text(ids)
        hinted = hinted or (vocabulary(draw.choice(HINTS).encode()) if draw.random() < 0.5 else [])
        is_plain = len(ids) > AT_RANDOM or draw.random() < 0.3
        if hinted and allowed[hinted[0]] and len(ids) <= AT_RANDOM:
            token = hinted.pop(0)
        else:
            token = vocabulary.plainest(allowed) if is_plain else int(draw.choice(np.flatnonzero(allowed)))
            hinted = []
        if token in vocabulary.stop_ids:
            break
        assert matcher.take(token)
        ids.append(token)
    return vocabulary.text(ids).decode() if matcher.may_end else None


@pytest.fixture(scope="module")
def grammars():
    vocabulary = Vocabulary(Tokenizer(str(DEMO)), [STOP_ID])
    return Grammars(lambda: vocabulary)


def test_answers_at_random_are_valid(grammars, monkeypatch):
    monkeypatch.setattr(trial, "first_fault", lambda *_: None)  # it would find the same, in another process
    taken = whole = 0
    for seed in range(SEEDS):
        form = Form("schema", Drawer(seed).schema(), "x")
        try:
            grammars.find(form)
        except BadRequest:
            continue
        taken += 1
        for number in range(ANSWERS):
            answer = walk(grammars.find(form), random.Random(number))
            if answer is not None:
                whole += 1
                assert not schema_fault(form.source, json.loads(answer)), (seed, form.source, answer)
    assert taken > LEAST_TAKEN * SEEDS and whole > 0.9 * ANSWERS * taken
