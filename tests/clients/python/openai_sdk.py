"""OpenAI's own client: chat completions and responses, streams, tools, errors."""

import openai
from asked import ANSWER_TOKENS, TOOL, asked, image_turn, tell

client = openai.OpenAI(base_url=asked["url"], api_key=asked["key"])
common = {"model": asked["model"], "max_tokens": ANSWER_TOKENS, "temperature": 0}
hello = [{"role": "user", "content": "hello"}]


def text(**options) -> str:
    return client.chat.completions.create(**common, **options).choices[0].message.content


def streamed() -> str:
    chunks = client.chat.completions.create(
        **common, messages=[image_turn()], stream=True, stream_options={"include_usage": True}
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def after_a_tool() -> str:
    call = {"id": "call_1", "type": "function", "function": {"name": TOOL["function"]["name"], "arguments": "{}"}}
    turns = [
        *hello,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    return text(messages=turns, tools=[TOOL])


def response_input() -> list:
    parts = [
        {"type": "input_text", "text": asked["question"]},
        {"type": "input_image", "image_url": asked["image"], "detail": "auto"},
    ]
    return [{"role": "user", "content": parts}]


def response() -> str:
    options = {"model": asked["model"], "max_output_tokens": ANSWER_TOKENS, "temperature": 0}
    return client.responses.create(**options, input=response_input()).output_text


def streamed_response() -> str:
    options = {"model": asked["model"], "max_output_tokens": ANSWER_TOKENS, "temperature": 0}
    with client.responses.stream(**options, input=response_input()) as events:
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events.get_final_response().output_text == deltas
        return deltas


def refused(**options) -> list:
    """The exception's class, its code and its message."""
    try:
        client.chat.completions.create(**common | options)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.code, error.message]
    return []


tell(
    models=[model.id for model in client.models.list()],
    text=text(messages=hello),
    image=text(messages=[image_turn()]),
    stream=streamed(),
    tools=text(messages=[image_turn()], tools=[TOOL], tool_choice="auto"),
    after_a_tool=after_a_tool(),
    response=response(),
    streamed_response=streamed_response(),
    unknown_model=refused(model="gpt-9", messages=hello),
    too_long=refused(messages=[{"role": "user", "content": "long " * 40000}]),
)
