"""What a request's text may not write into a prompt, and the room it leaves for an answer."""

import pytest

from lingbi.api_errors import TooLong
from lingbi.engine.prompts import BREAK, IMAGE, answer_room, plain


def test_text_cannot_write_special_tokens_or_places_of_images():
    for token in ("<IMAGE_TOKEN>", "[UNUSED_TOKEN_145]", "</s>", "<s>", "<|im_end|>", "<ImageHere>"):
        text = plain(f"a{token}b{IMAGE}{BREAK}c")
        assert token not in text and IMAGE not in text and text.replace(BREAK, "") == f"a{token}bc"
    assert plain("a < b, c > d [1] 中文") == "a < b, c > d [1] 中文"


def test_room_for_the_answer_is_what_is_asked_for_as_far_as_the_session_goes():
    asked = (None, 1, 90, 91, 5000)
    assert [answer_room(10, tokens, 100) for tokens in asked] == [90, 1, 90, 90, 90]
    for prompt in (100, 5000):
        with pytest.raises(TooLong, match=f"This model's maximum context length is 100 tokens.*has {prompt};"):
            answer_room(prompt, 1, 100)
