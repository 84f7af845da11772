"""What a matcher says must or may come next is what it takes, and only the end of an answer is a special token."""

import re

import pytest

from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.schemas import closed


def to_the_end(matcher, next_of=lambda tokens: tokens[0]) -> bytes:
    """The text of an answer of which next_of chooses the tokens that are not forced."""
    vocabulary, ids = matcher.vocabulary, []
    specials, stops = set(vocabulary.special_token_ids), set(vocabulary.stop_ids)
    while True:
        ids += matcher.take_forced()
        allowed = set(matcher.allowed().nonzero()[0].tolist())
        assert allowed & specials <= (stops if matcher.may_end else set()), vocabulary.text(ids)
        if matcher.must_end or not allowed - stops:
            assert not specials & set(ids)
            return vocabulary.text(ids)
        ids.append(next_of(sorted(allowed - stops)))
        assert matcher.take(ids[-1])


def test_text_that_looks_like_a_special_token_is_written_as_text(both_vocabularies):
    grammars = Grammars(lambda: both_vocabularies)
    specials = both_vocabularies.special_token_ids
    for special in specials[:6] + specials[-4:]:  # the others are reserved as these are
        text = both_vocabularies.tokens[special].decode()
        for source in (text, f"a{text}b", f"{text}{text}"):
            assert to_the_end(grammars.find(Form("choice", [source], "x"))).decode() == source
        assert to_the_end(grammars.find(Form("choice", [f"{text}x", f"{text}y"], "x"))).decode() == f"{text}x"
        assert to_the_end(grammars.find(Form("schema", {"const": text}, "x"))).decode() == f'"{text}"'
    schema = closed(**{"<s>": {"enum": ["</s>", "[UNUSED_TOKEN_145]"]}})
    assert to_the_end(grammars.find(Form("schema", schema, "x"))).startswith(b'{"<s>": "')


def test_so_is_one_of_which_the_beginning_was_chosen(both_vocabularies):
    grammars = Grammars(lambda: both_vocabularies)
    for text in ("<s>", "</s>", "<unk>", "[UNUSED_TOKEN_145]"):
        for place in range(1, len(text)):
            head, tail = re.escape(text[:place]), re.escape(text[place:])
            for next_of in (lambda tokens: tokens[0], lambda tokens: tokens[-1]):
                form = Form("regex", f"({head}|{head}{head}|~){tail}", "x")
                written = to_the_end(grammars.find(form), next_of).decode()
                assert re.fullmatch(form.source, written), written


def test_a_grammar_that_refuses_its_own_tokens_is_an_error(both_vocabularies, monkeypatch):
    """Else whoever goes on with them would never come to an end."""
    monkeypatch.setattr(Vocabulary, "__call__", lambda self, text: [self.bos_token_id] if text == b"<s>" else [])
    matcher = Grammars(lambda: both_vocabularies).find(Form("choice", ["<s>"], "x"))
    with pytest.raises(RuntimeError, match="refuses"):
        matcher.take_forced()
