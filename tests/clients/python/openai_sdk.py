"""OpenAI's own client: chat completions and responses, streams, tools, answers as objects of a class, errors."""

from typing import Literal

import openai
from asked import ANSWER_TOKENS, TOOL, asked, image_turn, tell
from pydantic import BaseModel, Field

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


class Thing(BaseModel):
    """One thing in the picture."""

    colour: Literal["red", "green", "blue", "yellow", "orange", "purple"]
    count: int = Field(ge=1, le=9)


class Things(BaseModel):
    """What the picture shows, with a class within a class, which becomes a reference in the schema."""

    things: list[Thing] = Field(min_length=1, max_length=2)
    is_empty: bool
    note: Literal["无", "none"] | None


def parsed() -> list[Things]:
    """The same answer by every way that the client has to ask for an object of a class."""
    turns, options = [image_turn()], {"model": asked["model"], "temperature": 0}
    whole = client.chat.completions.parse(**options, messages=turns, response_format=Things)
    with client.chat.completions.stream(**options, messages=turns, response_format=Things) as events:
        last = events.get_final_completion()
    response = client.responses.parse(**options, input=response_input(), text_format=Things)
    return [whole.choices[0].message.parsed, last.choices[0].message.parsed, response.output_parsed]


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
    parsed=[answer.model_dump() for answer in parsed()],
    unknown_model=refused(model="gpt-9", messages=hello),
    too_long=refused(messages=[{"role": "user", "content": "long " * 40000}]),
)
