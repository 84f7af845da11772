"""OpenAI's Agents SDK, on chat completions and on responses, which is its default; an agent that has a tool."""

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from asked import ANSWER_TOKENS, asked, tell

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=asked["url"], api_key=asked["key"])


@function_tool
def weather(place: str) -> str:
    """The weather of a place."""
    return f"sunny in {place}"


def answer(kind: type, tools: list) -> str:
    model = kind(model=asked["model"], openai_client=client)
    settings = ModelSettings(temperature=0, max_tokens=ANSWER_TOKENS)
    agent = Agent(name="lab", model=model, model_settings=settings, tools=tools)
    parts = [
        {"type": "input_text", "text": asked["question"]},
        {"type": "input_image", "image_url": asked["image"], "detail": "auto"},
    ]
    return Runner.run_sync(agent, [{"role": "user", "content": parts}]).final_output


tell(
    image=answer(OpenAIChatCompletionsModel, []),
    tools=answer(OpenAIChatCompletionsModel, [weather]),
    response=answer(OpenAIResponsesModel, []),
    response_tools=answer(OpenAIResponsesModel, [weather]),
)
