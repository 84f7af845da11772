"""What /v1/responses takes and gives, as the OpenAI API's Responses have it, without stored state."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.forms import Form
from lingbi.http.protocol.answer_forms import TextFormat
from lingbi.http.protocol.answers import ServedTier
from lingbi.http.protocol.messages import (
    MESSAGES_LIMIT,
    PARTS_LIMIT,
    AssistantMessage,
    CalledFunction,
    ImagePart,
    ImageUrl,
    Message,
    Name,
    RefusalPart,
    SystemMessage,
    Taken,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lingbi.http.protocol.requests import ChatRequest, MaxTokens, Sampled, Tools, as_question
from lingbi.http.protocol.unserved import RESPONSE, Unserved

Value = Annotated[str, StringConstraints(max_length=512)]  # of metadata, as the reference has it


class InputText(Taken):
    """Text in a message; of an earlier answer, `output_text`."""

    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Taken):
    """A picture in a message: a `data:` URL, or an http(s) URL that the server fetches."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


InputPart = Annotated[InputText | InputImage | RefusalPart, Field(discriminator="type")]


def _as_text(value: Any) -> Any:
    """Text as a list of one part."""
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[InputPart], Field(max_length=PARTS_LIMIT), BeforeValidator(_as_text)]


class InputMessage(Taken):
    """A message, or an earlier answer."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts


class FunctionCall(Taken):
    """A call of a function in an earlier answer."""

    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: str = ""


class FunctionCallOutput(Taken):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: Name
    output: Parts


class Reasoning(Taken):
    """What another model thought before it answered; it is passed over."""

    type: Literal["reasoning"]


def _item_type(value: Any) -> str | None:
    kind = value.get("type") or "message" if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("message", "function_call", "function_call_output", "reasoning") else None


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")],
    Discriminator(
        _item_type,
        custom_error_type="item_type",
        custom_error_message="must be a message, a function_call, a function_call_output or reasoning; nothing is stored "
        "here that could be referred to",
    ),
]


class AskedText(Taken):
    """The form of the answer; other fields change nothing."""

    format: TextFormat | None = None


class ResponseRequest(Sampled):
    """A question to the model, with the conversation before it."""

    unserved: ClassVar[Mapping[str, Unserved]] = RESPONSE

    input: Annotated[list[Item], Field(min_length=1, max_length=MESSAGES_LIMIT), BeforeValidator(as_question)] = Field(
        description="or one question as a string"
    )
    instructions: str | None = Field(None, description="a system message before the conversation")
    max_output_tokens: MaxTokens | None = Field(None, description="default, and at most: what the session leaves")
    metadata: dict[Name, Value] | None = Field(None, max_length=16, description="given back")
    tools: Tools | None = Field(None, description="taken, and never called")
    text: AskedText | None = None

    def asked_forms(self) -> dict[str, Form | None]:
        """The forms that are asked for, by field."""
        asked = self.text.format if self.text else None
        return super().asked_forms() | {"text.format": asked.form("text.format") if asked else None}

    @cached_property
    def chat(self) -> ChatRequest:
        """The same question as a chat completion. Raises BadRequest where there is none."""
        messages = messages_of(self.input)
        if not messages:
            raise BadRequest("input: holds nothing that could be answered; send a message", "input")
        system = [SystemMessage(role="system", content=self.instructions)] if self.instructions else []
        shared = {name: getattr(self, name) for name in Sampled.model_fields if name != "stream_options"}
        return ChatRequest(**shared, messages=[*system, *messages], max_tokens=self.max_output_tokens)

    def prepare(self) -> None:
        """Compute the chat completion, its turns and the form. Raises BadRequest where there is none."""
        self.chat.prepare()
        self.form  # noqa: B018  # computed here for its errors


def messages_of(items: Sequence[Item]) -> list[Message]:
    """The messages of chat completions that say what the items say. Raises BadRequest for a misplaced image."""
    messages: list[Message] = []
    for number, item in enumerate(items):
        place = f"input[{number}]"
        if isinstance(item, InputMessage):
            messages.append(_message(item, place))
        elif isinstance(item, FunctionCall):
            call = ToolCall(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments))
            messages.append(AssistantMessage(role="assistant", tool_calls=[call]))
        elif isinstance(item, FunctionCallOutput):
            output = _text(item.output, f"{place}.output")
            messages.append(ToolMessage(role="tool", content=output, tool_call_id=item.call_id))
    return messages


def _message(item: InputMessage, place: str) -> Message:
    if item.role == "user":
        parts = [_part(part) for part in item.content]
        return UserMessage(role="user", content=parts or "")
    text = _text(item.content, f"{place}.content")
    if item.role == "assistant":
        return AssistantMessage(role="assistant", content=text)
    return SystemMessage(role=item.role, content=text)


def _part(part: InputText | InputImage | RefusalPart) -> TextPart | ImagePart:
    if isinstance(part, InputImage):
        return ImagePart(type="image_url", image_url=ImageUrl(url=part.image_url, detail=part.detail))
    return TextPart(type="text", text=part.text if isinstance(part, InputText) else part.refusal)


def _text(parts: Sequence[InputText | InputImage | RefusalPart], place: str) -> str:
    """The text of parts. Raises BadRequest for an image: the model sees those of users only."""
    texts = []
    for number, part in enumerate(parts):
        if isinstance(part, InputImage):
            where = f"{place}[{number}]"
            raise BadRequest(f"{where}: pictures are read in a user's message only; send this one there", where)
        texts.append(part.text if isinstance(part, InputText) else part.refusal)
    return "\n".join(texts)


class CachedTokens(BaseModel):
    """Of the input's tokens, those that a kept session held already."""

    cached_tokens: int


class ReasoningTokens(BaseModel):
    """The model does not think aloud."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens of a request; a picture counts with the tokens that it becomes."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens = ReasoningTokens()
    total_tokens: int


class OutputText(BaseModel):
    """The answer's text."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputMessage(BaseModel):
    """The one item of an answer."""

    type: Literal["message"] = "message"
    id: str
    status: Status
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class IncompleteDetails(BaseModel):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class TextOptions(BaseModel):
    """The form that the answer was bound to."""

    format: dict[str, Any] = {"type": "text"}


class ResponseAnswer(BaseModel):
    """An answer, or how far it is. Nothing of it is stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    service_tier: ServedTier | None = None
    store: Literal[False] = False
    temperature: float | None = None
    text: TextOptions = TextOptions()
    tool_choice: Literal["auto", "none"] = "auto"
    tools: list[Any] = []
    top_p: float | None = None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
