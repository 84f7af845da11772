"""What a request's text may not write into a prompt, and the room it leaves for an answer."""

import pytest

from lingbi.api_errors import TooLong
from lingbi.engine.prompts import BREAK, IMAGE, answer_room, plain


def test_text_cannot_write_special_tokens_or_places_of_images():
    for token in ("<IMAGE_TOKEN>", "[UNUSED_TOKEN_145]", "</s>", "<s>", "<|im_end|>", "<ImageHere>"):
        text = plain(f"a{token}b{IMAGE}{BREAK}c")
        assert token not in text and IMAGE not in text and text.replace(BREAK, "") == f"a{token}bc"
    assert plain("a < b, c > d [1] 中文") == "a < b, c > d [1] 中文"


def test_room_for_the_answer():
    assert answer_room(10, None, 100) == 90 and answer_room(10, 90, 100) == 90
    for prompt, asked in ((100, None), (10, 91), (5000, 1)):
        with pytest.raises(TooLong, match="100"):
            answer_room(prompt, asked, 100)
