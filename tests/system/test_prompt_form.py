"""LINGBI_PROMPT_FORM=published, from the setting to the answer: worker, readiness probe, smoke and pipeline."""

import json

import httpx
import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.images.messages import data_url, user_message
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.model import catalogue
from tests.conftest import DEMO, lingbi, running_worker

IMAGE_TOKENS = 36
PUBLISHED = {"LINGBI_PROMPT_FORM": "published"}
RED = draw(Scene((Thing("red", "circle"),)))
SYSTEM = f"[UNUSED_TOKEN_146]system\n{catalogue.INSTRUCTION}[UNUSED_TOKEN_145]\n"
USER, ASSISTANT = "[UNUSED_TOKEN_146]user\n", "[UNUSED_TOKEN_146]assistant\n"
END = "[UNUSED_TOKEN_145]\n"


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("published") / "state"
    with running_worker(state_dir, **PUBLISHED) as running:
        yield running | {"state_dir": state_dir}


def tokens(*parts: str) -> int:
    """Of parts of a prompt between images, each with a start token."""
    tokenizer = Tokenizer(str(DEMO))
    return sum(len(tokenizer.encode(part)) for part in parts)


def ask(worker, messages: list) -> dict:
    body = {"model": worker["model"], "messages": messages, "temperature": 0}
    headers = {"Authorization": f"Bearer {worker['key']}"}
    response = httpx.post(f"{worker['url']}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_conversation_has_the_published_forms_tokens_and_right_answers(worker):
    question, second = "它是什么颜色?", "它是什么形状?"
    messages = [user_message(question, data_url(RED))]
    first = ask(worker, messages)
    answer = first["choices"][0]["message"]["content"]
    assert "红" in answer
    before, after = SYSTEM + USER, f"{question}{END}{ASSISTANT}"
    assert first["usage"]["prompt_tokens"] == tokens(before, after) + IMAGE_TOKENS
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": second}]
    later = ask(worker, messages)
    assert "圆" in later["choices"][0]["message"]["content"]
    after += f"{answer}{END}{USER}{second}{END}{ASSISTANT}"
    assert later["usage"]["prompt_tokens"] == tokens(before, after) + IMAGE_TOKENS


def test_ready_tells_the_form_and_smoke_passes(worker, tmp_path):
    told = httpx.get(f"{worker['url']}/ready").json()["prompt"]
    assert told == {"form": "published", "template_tokens": tokens(SYSTEM + USER, END + ASSISTANT)}
    key_file = worker["state_dir"] / "api-key"
    done = lingbi("smoke", worker["url"], "--api-key-file", key_file, state_dir=tmp_path / "state")
    assert done.returncode == 0, done.stderr


def test_the_pipeline_asks_in_the_same_form(worker, tmp_path):
    file, question = tmp_path / "red.png", "What colour is it?"
    RED.save(file)
    arguments = ("--model", "demo", "--engine", "cpu", "--prompt", question)
    done = lingbi("pipeline", file, *arguments, state_dir=tmp_path / "state", **PUBLISHED)
    (row,) = (json.loads(line) for line in done.stdout.splitlines())
    served = ask(worker, [user_message(question, data_url(RED))])
    assert row["text"] == served["choices"][0]["message"]["content"] and "red" in row["text"]
    assert row["input_token_len"] == served["usage"]["prompt_tokens"]
    assert row["generate_token_len"] == served["usage"]["completion_tokens"]
