"""The most that a request may take: never less than it takes."""

import pytest

from lingbi.accounts.quotas.decision import Asked
from lingbi.engine.prompt_forms import form_of
from lingbi.engine.prompts import encode, template_tokens
from lingbi.http.admission.estimates import Costs, most_of
from lingbi.http.protocol.requests import ChatRequest, CompletionRequest
from lingbi.http.protocol.responses import ResponseRequest
from tests.conftest import DEMO

COSTS = Costs(session=4096, image=1225, template=143)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def chat(*messages, **fields):
    return ChatRequest(model="m", messages=list(messages), **fields)


def user(*texts, images=0):
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts] + [IMAGE] * images}


@pytest.mark.parametrize(
    "body, most",
    [
        (chat(user("hi")), Asked(4096)),
        (chat(user("hi"), max_tokens=100), Asked(143 + 2 + 16 + 100)),
        (chat(user("hi"), max_completion_tokens=50), Asked(143 + 2 + 16 + 50)),
        (chat(user("hi", images=2), max_tokens=100), Asked(143 + 2 + 16 + 2 * (1225 + 16) + 100, 2)),
        (chat(user("hi", images=9), max_tokens=100), Asked(4096, 9)),
        (chat(user("\N{HEAVY BLACK HEART}"), max_tokens=10), Asked(143 + 3 + 16 + 10)),
        (chat(user("hi"), max_tokens=10**9), Asked(4096)),
        (CompletionRequest(model="m", prompt="hello"), Asked(5 + 16 + 16)),
        (CompletionRequest(model="m", prompt=["hello", "you"], max_tokens=7), Asked(5 + 3 + 2 * (16 + 7))),
        (CompletionRequest(model="m", prompt=["x" * 9000, "y"], max_tokens=7), Asked(4096 + 1 + 16 + 7)),
        (ResponseRequest(model="m", input="hi", max_output_tokens=100), Asked(143 + 2 + 16 + 100)),
    ],
)
def test_by_fields(body, most):
    assert most_of(body, COSTS) == most


@pytest.mark.parametrize("form", ["lmdeploy", "published"])
def test_the_real_prompt_has_no_more_tokens(form):
    from lmdeploy.model import MODELS
    from lmdeploy.tokenizer import Tokenizer

    from lingbi.model.folder import inspect

    tokenizer, template = Tokenizer(str(DEMO)), MODELS.get("internlm-xcomposer2")()
    form = form_of(form, inspect(DEMO), template)
    for text in (
        "",
        "What is this?",
        "圆形是什么颜色？" * 20,
        "a b  c\n\n" * 50,
        "\N{GRINNING FACE}" * 30,
        "[UNUSED_TOKEN_146]",
    ):
        turns = [{"role": role, "content": text} for role in ("user", "assistant", "user")]
        real = sum(map(len, encode(form.write(turns), tokenizer, form.starts_after_images)))
        asked = chat(*turns, max_tokens=1)
        assert real + 1 <= most_of(asked, Costs(100_000, 0, template_tokens(form, tokenizer))).tokens
