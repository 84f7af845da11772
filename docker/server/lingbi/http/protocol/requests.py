"""The requests that the API accepts: chat completions and completions of the OpenAI API.

Unknown fields are tolerated, as the reference API does; unusable values are not. What cannot be honoured is refused
(unserved.py). The OpenAPI document is made from these classes.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.forms import Form
from lingbi.http.protocol.answer_forms import Choices, Regex, ResponseFormat, Schema, only_form
from lingbi.http.protocol.answers import FLEX, ServedTier
from lingbi.http.protocol.messages import MESSAGES_LIMIT, Message, Name, Taken, Turn, turns_of
from lingbi.http.protocol.unserved import CHAT, COMMON, COMPLETION, Unserved, refuse_unserved

SEED_LIMIT = 1 << 63
PROMPT_LIMIT = 16
STOP_LIMIT = 16
STOP_CHARACTERS = 1024  # an answer holds back as much while it may become one
TOOLS_LIMIT = 1024
MAX_TEMPERATURE = 2.0


def _listed(value: Any) -> Any:
    """A single text as a list of one."""
    if not isinstance(value, str | list):
        raise ValueError("must be a string or a list of strings")
    return [value] if isinstance(value, str) else value


def as_question(value: Any) -> Any:
    """A conversation that is a text, as lmdeploy's own client documents it: one question."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _text_or_texts(limit: int, least: int = 0) -> WithJsonSchema:
    texts = {"type": "array", "items": {"type": "string"}, "minItems": least, "maxItems": limit}
    return WithJsonSchema({"anyOf": [{"type": "string"}, texts]})


StopWord = Annotated[str, StringConstraints(max_length=STOP_CHARACTERS)]
StopWords = Annotated[
    list[StopWord], Field(max_length=STOP_LIMIT), BeforeValidator(_listed), _text_or_texts(STOP_LIMIT)
]
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
    user: Name | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = Field(
        None, description="flex: in the background, begun while no other request waits; the others: as usual"
    )
    response_format: ResponseFormat | None = None
    guided_json: Schema | None = Field(None, description="a JSON Schema that the answer is held to, or one as text")
    guided_regex: Regex | None = Field(None, description="a regular expression that the whole answer is held to")
    guided_choice: Choices | None = Field(None, description="texts of which the answer is one")

    @cached_property
    def form(self) -> Form | None:
        """The form that the answer is bound to. Raises BadRequest where it has several, or one without its schema."""
        return only_form(self.asked_forms())

    @property
    def served_tier(self) -> ServedTier | None:
        """The tier that the answer names; None where none was asked for."""
        return None if self.service_tier is None else FLEX if self.service_tier == FLEX else "default"

    def asked_forms(self) -> dict[str, Form | None]:
        """The forms that are asked for, by field."""
        return {
            "response_format": self.response_format.form("response_format") if self.response_format else None,
            "guided_json": None if self.guided_json is None else Form("schema", self.guided_json, "guided_json"),
            "guided_regex": Form("regex", self.guided_regex, "guided_regex") if self.guided_regex else None,
            "guided_choice": Form("choice", self.guided_choice, "guided_choice") if self.guided_choice else None,
        }

    @model_validator(mode="before")
    @classmethod
    def _refuse_unserved(cls, data: Any) -> Any:
        refuse_unserved(data, cls.unserved)
        return data

    def prepare(self) -> None:
        """Compute what grows with the request while nobody waits for it; it is called in a thread for a long one."""


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

    @cached_property
    def turns(self) -> list[Turn]:
        """The conversation as the model reads it."""
        return turns_of(self.messages)

    def prepare(self) -> None:
        """Compute the turns. Raises BadRequest for a form that the answer cannot have."""
        len(self.turns)
        if self.form and self.logprobs:
            raise BadRequest(
                f"logprobs: not with {self.form.place.split('.')[0]}, for tokens that a form forces have none",
                "logprobs",
            )


class CompletionRequest(Sampled):
    """A text to continue; no chat template is put around it."""

    unserved: ClassVar[Mapping[str, Unserved]] = COMPLETION

    prompt: Prompts
    max_tokens: MaxTokens | None = 16
