"""The requests that the API accepts: chat completions and completions of the OpenAI API.

Unknown fields are tolerated, as the reference API does; unusable values are not. What cannot be honoured is refused
(unserved.py). The OpenAPI document is made from these classes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from lingbi.http.protocol.messages import MESSAGES_LIMIT, Message, Taken, Turn, turns_of
from lingbi.http.protocol.unserved import CHAT, COMMON, COMPLETION, Unserved, refuse_unserved

SEED_LIMIT = 1 << 63
PROMPT_LIMIT = 16
STOP_LIMIT = 16
TOOLS_LIMIT = 1024
MAX_TEMPERATURE = 2.0


def _listed(value: Any) -> Any:
    """A single text as a list of one."""
    return [value] if isinstance(value, str) else value


def as_question(value: Any) -> Any:
    """A conversation that is a text, as lmdeploy's own client documents it: one question."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _text_or_texts(limit: int, least: int = 0) -> WithJsonSchema:
    texts = {"type": "array", "items": {"type": "string"}, "minItems": least, "maxItems": limit}
    return WithJsonSchema({"anyOf": [{"type": "string"}, texts]})


StopWords = Annotated[list[str], Field(max_length=STOP_LIMIT), BeforeValidator(_listed), _text_or_texts(STOP_LIMIT)]
Prompts = Annotated[
    list[str],
    Field(min_length=1, max_length=PROMPT_LIMIT),
    BeforeValidator(_listed),
    _text_or_texts(PROMPT_LIMIT, least=1),
]
Tools = Annotated[list[dict[str, Any]], Field(max_length=TOOLS_LIMIT)]
MaxTokens = Annotated[int, Field(ge=1)]


class StreamOptions(Taken):
    """What a stream holds beside the answer."""

    include_usage: bool | None = False


def _with_unserved(schema: dict[str, Any], request: type["Sampled"]) -> None:
    schema["properties"] |= {name: field.schema for name, field in request.unserved.items()}


class Sampled(Taken):
    """What chat completions and completions share."""

    model_config = ConfigDict(json_schema_extra=_with_unserved)
    unserved: ClassVar[Mapping[str, Unserved]] = COMMON

    model: str
    temperature: float | None = Field(0.7, ge=0, le=MAX_TEMPERATURE, description="0: always the likeliest token")
    top_p: float | None = Field(1.0, ge=0, le=1)
    top_k: int | None = Field(40, ge=-1, le=1024, description="0 or -1: all tokens")
    repetition_penalty: float | None = Field(1.0, ge=0.01, le=100, description="1: none")
    seed: int | None = Field(None, ge=-SEED_LIMIT, lt=SEED_LIMIT)
    stop: StopWords | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = Field(None, description="only where stream is true")
    ignore_eos: bool | None = False
    skip_special_tokens: bool | None = True
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unserved(cls, data: Any) -> Any:
        refuse_unserved(data, cls.unserved)
        return data


class ChatRequest(Sampled):
    """A question to the model, with the conversation before it."""

    unserved: ClassVar[Mapping[str, Unserved]] = CHAT

    messages: Annotated[list[Message], Field(min_length=1, max_length=MESSAGES_LIMIT), BeforeValidator(as_question)] = (
        Field(description="or one question as a string")
    )
    max_tokens: MaxTokens | None = Field(None, description="default, and at most: what the session leaves")
    max_completion_tokens: MaxTokens | None = Field(None, description="the newer name of max_tokens")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Tools | None = Field(None, description="taken, and never called")
    functions: Tools | None = Field(None, description="taken, and never called")

    @property
    def turns(self) -> list[Turn]:
        """The conversation as the model reads it."""
        return turns_of(self.messages)


class CompletionRequest(Sampled):
    """A text to continue; no chat template is put around it."""

    unserved: ClassVar[Mapping[str, Unserved]] = COMPLETION

    prompt: Prompts
    max_tokens: MaxTokens | None = 16
