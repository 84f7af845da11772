"""LangChain: a chat model with images, streams and bound tools; a prompt over the context has LangChain's own exception."""

from asked import ANSWER_TOKENS, TOOL, asked, image_turn, tell
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI

options = {"base_url": asked["url"], "api_key": asked["key"], "model": asked["model"], "temperature": 0}
model = ChatOpenAI(**options, max_completion_tokens=ANSWER_TOKENS)


def too_long() -> str:
    try:
        model.invoke("long " * 40000)
    except ContextOverflowError as error:
        return str(error)
    return ""


tell(
    text=model.invoke("hello").text,
    image=model.invoke([image_turn()]).text,
    stream="".join(chunk.text for chunk in model.stream([image_turn()])),
    tools=model.bind_tools([TOOL]).invoke([image_turn()]).text,
    response=ChatOpenAI(**options, max_completion_tokens=ANSWER_TOKENS, use_responses_api=True)
    .invoke([image_turn()])
    .text,
    too_long=too_long(),
)
