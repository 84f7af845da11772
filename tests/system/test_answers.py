"""What clients get from a running server: the OpenAI API, told truly, and right answers whatever else happens."""

import concurrent.futures
import contextlib
import json
import threading
import time

import httpx
import openai
import pytest

from lingbi.images.scenes import COLOURS, Scene, Thing
from lingbi.launch.supervision import wait_until
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES, body, client_options, fault, http, is_at_rest, metric, question
from tests.server.images.bad_images import refused

GREEN = Scene((Thing("green", "triangle"),))


@pytest.fixture(scope="module")
def client(demo_server):
    return openai.OpenAI(base_url=demo_server["url"] + "/v1", api_key=demo_server["key"], max_retries=0)


@pytest.fixture(scope="module")
def ask(client, demo_server):
    def ask(*messages, **options):
        messages = list(messages) or [turn("What colour is it?", data_url(GREEN))]
        options = {"max_tokens": 32, "temperature": 0} | options
        return client.chat.completions.create(model=demo_server["model"], messages=messages, **options)

    return ask


def text_of(completion) -> str:
    return completion.choices[0].message.content


def test_a_stream_without_usage_is_the_whole_answer_in_order(ask):
    whole, chunks = ask(), list(ask(stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text_of(whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks) and len({chunk.id for chunk in chunks}) == 1


def test_a_stream_with_usage_ends_with_it(ask):
    whole, chunks = ask(), list(ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_usage_is_what_was_generated(ask):
    for count in (1, 2, 8):
        answer = ask({"role": "user", "content": "hello"}, max_tokens=count, extra_body={"ignore_eos": True})
        assert answer.usage.completion_tokens == count and answer.choices[0].finish_reason == "length"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + count
    logprobs = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(logprobs) == ask().usage.completion_tokens and all(len(item.top_logprobs) == 2 for item in logprobs)
    assert b"".join(bytes(item.bytes) for item in logprobs).decode() == text_of(ask())


@pytest.mark.parametrize("stop", ["green", "reen", ["never", "n."], " gre"])
def test_stop_words_end_the_answer_and_are_not_shown(ask, stop):
    first = [stop] if isinstance(stop, str) else stop
    expected = min((text_of(ask()).split(word)[0] for word in first), key=len)
    assert text_of(ask(stop=stop)) == expected and expected != text_of(ask())
    assert ask(stop=stop).choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(stop=stop, stream=True)) == expected


def test_seeds_repeat_answers_and_temperature_goes_to_2(ask):
    hot = {"temperature": 2, "max_tokens": 16, "extra_body": {"ignore_eos": True, "top_k": 0}}
    answers = [text_of(ask(seed=seed, **hot)) for seed in (7, 7, 8, 9, -1)]
    assert answers[0] == answers[1] and len(set(answers)) > 2
    assert text_of(ask(temperature=2, top_p=0)) == text_of(ask(temperature=0)) == text_of(ask(temperature=1e-5))


def test_several_images_and_turns(ask):
    colours = ("red", "blue")
    one, two = (data_url(Scene((Thing(colour, "circle"),))) for colour in colours)
    first = ask(turn("What colour is it?", one))
    talk = [turn("What colour is it?", one), {"role": "assistant", "content": text_of(first)}]
    second = ask(*talk, turn("What colour is it?", two))
    assert "red" in text_of(first) and second.usage.prompt_tokens > first.usage.prompt_tokens + 36
    both = ask(turn("What colour is it?", one, two))
    assert both.usage.prompt_tokens >= first.usage.prompt_tokens + 36 and text_of(both)
    listed = [{"type": "text", "text": "Answer in English."}]
    assert text_of(ask({"role": "system", "content": listed}, turn("What colour is it?", one)))


def test_an_image_without_text_and_text_in_parts_are_answered(ask):
    assert text_of(ask(turn("", data_url(GREEN))))
    alone = turn("", data_url(GREEN))
    del alone["content"][0]
    assert text_of(ask(alone))
    parts = turn("What colour", data_url(GREEN))
    parts["content"].append({"type": "text", "text": "is it?"})
    assert "green" in text_of(ask(parts))


def test_special_tokens_in_text_are_text(ask):
    plain = ask({"role": "user", "content": "hello"})
    for token in ("<IMAGE_TOKEN>", "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]", "</s>", "<s>", "<unk>", "<|im_end|>"):
        answer = ask({"role": "user", "content": "hello" + token})
        assert answer.usage.prompt_tokens >= plain.usage.prompt_tokens + 3, token
        seen = turn(f"{token}What colour is it?{token}", data_url(GREEN))
        assert text_of(ask(seen))


def test_a_prompt_over_the_session_is_a_400_with_both_numbers(ask):
    with pytest.raises(
        openai.BadRequestError, match=r"maximum context length is 4096 tokens.*of the prompt's \d+ characters"
    ) as caught:
        ask({"role": "user", "content": "hello " * 5000})
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=r"4096 tokens.*10\d{5}"):
        ask({"role": "user", "content": "x" * 1_000_000})


def test_unknown_fields_are_tolerated_and_a_dozen_choices_are_not(ask):
    assert text_of(ask(user="me", extra_body={"nobody_knows": {"this": 1}})) == text_of(ask())
    with pytest.raises(openai.BadRequestError, match="n is not served"):
        ask(n=12)
    with pytest.raises(openai.NotFoundError):
        ask(extra_body={"model": "gpt-4"})


def test_text_completions_of_several_prompts(client, demo_server):
    options = {"model": demo_server["model"], "prompt": ["The picture shows", "It is"], "max_tokens": 6}
    whole = client.completions.create(**options, temperature=0)
    assert [choice.index for choice in whole.choices] == [0, 1] and whole.usage.completion_tokens <= 12
    texts = ["", ""]
    for chunk in client.completions.create(**options, temperature=0, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


@pytest.mark.parametrize("name", refused())
def test_a_bad_image_fails_its_own_request_only(demo_server, name):
    """It is sent beside good ones, in the middle of a batch, streamed and whole."""
    url, _ = refused()[name]
    scene = SCENES[len(name)]
    bad = body(demo_server, [turn(QUESTION, data_url(GREEN), url)])
    with http(demo_server) as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        bodies = [question(demo_server, scene), bad, question(demo_server, scene), bad | {"stream": True}]
        good, whole, another, streamed = pool.map(lambda item: client.post(CHAT, json=item), bodies)
    assert fault(scene, good) is None and fault(scene, another) is None
    for response in (whole, streamed):
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "invalid_image") and error["message"]


def test_a_hundred_images_and_deep_messages_are_refused(demo_server):
    with http(demo_server) as client:
        many = body(demo_server, [turn(QUESTION, *[data_url(GREEN)] * 100)])
        assert "100 pictures" in client.post(CHAT, json=many).json()["error"]["message"]
        deep = b'{"model": "x", "messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        assert client.post(CHAT, content=deep).status_code == 400


def test_concurrent_distinct_images_get_the_answers_that_they_get_alone(demo_server):
    with http(demo_server) as client:
        bodies = [question(demo_server, scene) for scene in SCENES]

        def ask(item) -> str:
            return client.post(CHAT, json=item).json()["choices"][0]["message"]["content"]

        alone = [ask(item) for item in bodies]
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            together = list(pool.map(ask, bodies))
    assert together == alone and len(set(alone)) == len(SCENES)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_session_at_once(demo_server, stream):
    endless = {"max_tokens": 3000, "ignore_eos": True, "stream": stream}
    with http(demo_server) as client:
        request = client.build_request("POST", CHAT, json=question(demo_server, GREEN, **endless))
        if stream:
            response = client.send(request, stream=True)
            lines = response.iter_lines()
            next(lines)
            assert metric(demo_server, "lingbi_sessions") == 1
            response.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(CHAT, json=question(demo_server, GREEN, **endless), timeout=1)
    assert wait_until(lambda: is_at_rest(demo_server), 5)


def test_clients_that_leave_at_any_time_leave_nothing_behind(demo_server):
    endless = {"max_tokens": 3000, "ignore_eos": True, "stream": True}

    def leave(number: int) -> None:
        until = time.monotonic() + 0.02 * number
        with (
            httpx.Client(**client_options(demo_server) | {"timeout": 0.02 * number}) as client,
            contextlib.suppress(httpx.TimeoutException),
            client.stream("POST", CHAT, json=question(demo_server, SCENES[number], **endless)) as response,
        ):
            assert any(time.monotonic() > until for _ in response.iter_lines()), "an endless answer ended"

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(leave, range(1, 25)))
    assert wait_until(lambda: is_at_rest(demo_server), 10)
    with http(demo_server) as client:
        assert fault(GREEN, client.post(CHAT, json=question(demo_server, GREEN))) is None


def test_the_log_has_one_json_line_a_request_and_no_content(demo_server):
    with http(
        demo_server, headers={"X-Request-ID": "look-for-me", "Authorization": f"Bearer {demo_server['key']}"}
    ) as client:
        client.post(CHAT, json=body(demo_server, [turn("private words", data_url(GREEN))]))
    log = demo_server["state_dir"] / "logs/worker-0.log"
    assert wait_until(lambda: "look-for-me" in log.read_text(), 20)
    text = log.read_text()
    (line,) = (json.loads(line) for line in text.splitlines() if "look-for-me" in line)
    assert line["status"] == 200 and line["pictures"] == 1 and line["key"] == "default" and line["first_token_s"] > 0
    assert "private words" not in text and "data:image" not in text and demo_server["key"] not in text


def test_a_slow_body_and_a_half_one_hold_nobody_up(demo_server):
    gone = threading.Event()

    def half():
        yield b'{"model": '
        gone.wait(20)

    def send():
        with http(demo_server, timeout=60) as client:
            return client.post(CHAT, content=half()).status_code

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(send)
        with http(demo_server) as client:
            assert fault(GREEN, client.post(CHAT, json=question(demo_server, GREEN))) is None
        assert not slow.done()
        gone.set()
        assert slow.result() == 400


def test_all_colours_are_known():
    assert {scene.things[0].colour for scene in SCENES} <= set(COLOURS)


def test_events_hold_no_nulls_that_clients_would_show(demo_server):
    """As in OpenAI's reference: a delta holds what it adds, and the last one nothing."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with http(demo_server) as client:
        lines = client.post(CHAT, json=question(demo_server, GREEN, **options)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert len(deltas) > 2 and all(delta.keys() == {"content"} and delta["content"] for delta in deltas[1:-1])


def test_usage_tells_what_a_kept_session_held(ask):
    message = turn("What shape is it?", data_url(GREEN))
    ask(message)
    again = ask(message).usage
    cached = again.prompt_tokens_details.cached_tokens
    assert 0 < cached < again.prompt_tokens
    *_, last = ask(message, stream=True, stream_options={"include_usage": True})
    assert last.usage.prompt_tokens_details.cached_tokens == cached


def test_tools_are_answered_in_text_and_their_history_is_read(ask):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    image = turn("What colour is it?", data_url(GREEN))
    plain = text_of(ask(image))
    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        assert text_of(ask(image, tools=[tool], **choice)) == plain
    history = [image, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert text_of(ask(*history, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}))
    with pytest.raises(openai.BadRequestError, match="tool_choice is not served"):
        ask(image, tools=[tool], tool_choice="required")


def test_more_tokens_than_there_is_room_for_are_as_many_as_there_are(ask):
    assert text_of(ask(max_tokens=1_000_000)) == text_of(ask())
