"""LlamaIndex through OpenAILike, which asks for nothing but an OpenAI-compatible address."""

import base64

from asked import ANSWER_TOKENS, asked, tell
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model=asked["model"],
    api_base=asked["url"],
    api_key=asked["key"],
    is_chat_model=True,
    max_tokens=ANSWER_TOKENS,
    temperature=0,
)
image = base64.b64decode(asked["image"].partition(";base64,")[2])
turn = ChatMessage(role="user", blocks=[TextBlock(text=asked["question"]), ImageBlock(image=image)])

tell(
    text=model.complete("hello").text,
    image=model.chat([turn]).message.content,
    stream="".join(chunk.delta or "" for chunk in model.stream_chat([turn])),
)
