"""LiteLLM as a library: images, streams, tools; a prompt over the context has LiteLLM's own exception."""

import litellm
from asked import ANSWER_TOKENS, TOOL, asked, image_turn, tell

options = {
    "model": f"openai/{asked['model']}",
    "api_base": asked["url"],
    "api_key": asked["key"],
    "max_tokens": ANSWER_TOKENS,
    "temperature": 0,
}


def text(messages: list, **more) -> str:
    return litellm.completion(**options, messages=messages, **more).choices[0].message.content


def streamed() -> str:
    chunks = litellm.completion(**options, messages=[image_turn()], stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def too_long() -> str:
    try:
        text([{"role": "user", "content": "long " * 40000}])
    except litellm.ContextWindowExceededError as error:
        return str(error)
    return ""


tell(
    text=text([{"role": "user", "content": "hello"}]),
    image=text([image_turn()]),
    stream=streamed(),
    tools=text([image_turn()], tools=[TOOL]),
    too_long=too_long(),
)
