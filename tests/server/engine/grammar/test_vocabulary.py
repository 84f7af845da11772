"""A text's tokens have its bytes, and none of them is a special one, whatever the text looks like."""

import pytest

from lingbi.engine.prompts import encode, plain

AROUND = ("{}", "a {} b", '"{}"', "{}{}", "[{}]", "\n{}\n", "中{}文", "  {}  ", "❤{}", "{}\u2581", "[U{}", "<s{}")


def test_text_that_looks_like_a_special_token_is_tokenised_as_other_text_is(both_vocabularies):
    vocabulary = both_vocabularies
    assert len(vocabulary.special_token_ids) > 20
    for special in vocabulary.special_token_ids:
        for around in AROUND:
            text = around.replace("{}", vocabulary.tokens[special].decode()).encode()
            ids = vocabulary(text)
            assert not set(ids) & set(vocabulary.special_token_ids), text
            assert vocabulary.text(ids) == text


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "[UNUSED_TOKEN_145]"])
def test_it_has_the_tokens_that_it_has_in_a_prompt(both_vocabularies, text):
    (ids,) = encode(plain(text), both_vocabularies._tokenizer, starts_after_images=False)
    assert both_vocabularies(text.encode()) == ids[1:]  # after the start token


def test_other_text_has_the_tokenizers_own_tokens(both_vocabularies):
    for text in ("A red circle.", "中文 and\ttext ", " spaces  ", "<image>", "[UNUSED]", "<s"):
        assert both_vocabularies(text.encode()) == both_vocabularies._tokenizer.encode(text, add_bos=False), text
