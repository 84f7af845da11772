"""pydantic-ai: an agent on chat completions and on responses, with and without a tool."""

import base64

from asked import ANSWER_TOKENS, asked, tell
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=asked["url"], api_key=asked["key"])
kind, _, data = asked["image"].removeprefix("data:").partition(";base64,")


def weather(place: str) -> str:
    """The weather of a place."""
    return f"sunny in {place}"


def answer(model: type, tools: list) -> str:
    settings = {"temperature": 0, "max_tokens": ANSWER_TOKENS}
    agent = Agent(model(asked["model"], provider=provider), model_settings=settings, tools=tools)
    return agent.run_sync([asked["question"], BinaryContent(base64.b64decode(data), media_type=kind)]).output


tell(
    image=answer(OpenAIChatModel, []),
    tools=answer(OpenAIChatModel, [weather]),
    response=answer(OpenAIResponsesModel, []),
)
