"""What a request's text may not write into a prompt, and the room it leaves for an answer."""

import pytest
import torch

from lingbi.api_errors import TooLong
from lingbi.engine.prompts import BREAK, IMAGE, Prompt, answer_room, plain


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


PICTURES = [torch.arange(8.0).view(4, 2), torch.arange(8.0, 18.0).view(5, 2)]
TWO_PICTURES = Prompt([1, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 4, 5], PICTURES, [[2, 6], [7, 12]])


def placed(inputs: dict) -> list[tuple[int, int, list[float]]]:
    """(place in the prompt, token, feature or nothing) of each token that the engine is given."""
    ids = inputs["input_ids"]
    features = [[] for _ in ids]
    for feature, (begin, end) in zip(
        inputs.get("input_embeddings", ()), inputs.get("input_embedding_ranges", ()), strict=True
    ):
        assert len(feature) == end - begin > 0
        features[begin:end] = feature.tolist()
    return [(inputs["step"] + place, token, features[place]) for place, token in enumerate(ids)]


@pytest.mark.parametrize("size", range(1, 15))
def test_parts_of_a_prompt_are_the_whole_even_inside_a_picture(size):
    whole = placed(TWO_PICTURES.inputs())
    assert sum(bool(feature) for *_, feature in whole) == 9
    parts = [placed(TWO_PICTURES.until(step + size).inputs(step)) for step in range(0, len(TWO_PICTURES.ids), size)]
    assert [token for part in parts for token in part] == whole
