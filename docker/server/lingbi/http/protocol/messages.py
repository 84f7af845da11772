"""The messages of a conversation, and the turns that the model reads of them.

Roles and parts are those of the OpenAI API. The model knows three roles and no tools: a developer's message is a system
message, and what belongs to tools is read as text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

MESSAGES_LIMIT = 4096  # more have no room in any model's session, at five tokens each
PARTS_LIMIT = 1024
NAME_CHARACTERS = 256  # of a tool or a call; a name may be written once for every message
Role = Literal["system", "user", "assistant"]
Name = Annotated[str, StringConstraints(max_length=NAME_CHARACTERS)]


class Taken(BaseModel):
    """A part of a request. Numbers and booleans may be written as text, as lmdeploy's own server takes them; no NaN."""

    model_config = ConfigDict(allow_inf_nan=False)


class TextPart(Taken):
    """Text in a message."""

    type: Literal["text"]
    text: str


class RefusalPart(Taken):
    """An earlier refusal of the assistant, which is read as its text."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Taken):
    """A picture: `data:image/…;base64,…`, or an http(s) URL that the server fetches. `detail` changes nothing."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Taken):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _kind(value: Any) -> str | None:
    """Which of a content's two forms a value has."""
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


NEITHER = Discriminator(
    _kind, custom_error_type="content_type", custom_error_message="must be a string or a list of parts"
)
Parts = Field(min_length=1, max_length=PARTS_LIMIT)
TextContent = Annotated[Annotated[str, Tag("text")] | Annotated[list[TextPart], Parts, Tag("parts")], NEITHER]
Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = Annotated[Annotated[str, Tag("text")] | Annotated[list[Part], Parts, Tag("parts")], NEITHER]
SaidPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
SaidContent = Annotated[Annotated[str, Tag("text")] | Annotated[list[SaidPart], Parts, Tag("parts")], NEITHER]


class SystemMessage(Taken):
    """What the model is told to be; `developer` is the newer name of the role."""

    role: Literal["system", "developer"]
    content: TextContent


class UserMessage(Taken):
    """A question: text, pictures, or both."""

    role: Literal["user"]
    content: Content


class CalledFunction(Taken):
    """A function that an earlier answer called, with its arguments as JSON text."""

    name: Name
    arguments: str | None = ""

    @property
    def text(self) -> str:
        """The call as `name(arguments)`."""
        return f"{self.name}({self.arguments or ''})"


class CalledCustom(Taken):
    """A tool of the client's own kind that an earlier answer called, with its input as free text."""

    name: Name
    input: str | None = ""

    @property
    def text(self) -> str:
        """The call as `name(input)`."""
        return f"{self.name}({self.input or ''})"


class ToolCall(Taken):
    """A call of a function in an earlier answer."""

    id: Name | None = None
    function: CalledFunction

    @property
    def called(self) -> CalledFunction:
        """What was called."""
        return self.function


class CustomToolCall(Taken):
    """A call of a custom tool in an earlier answer."""

    id: Name | None = None
    type: Literal["custom"]
    custom: CalledCustom

    @property
    def called(self) -> CalledCustom:
        """What was called."""
        return self.custom


def _call_kind(value: Any) -> str:
    """Which of the two kinds a call is; clients often leave out the type of a function's."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "custom_call" if kind == "custom" else "function_call"


AnyToolCall = Annotated[
    Annotated[ToolCall, Tag("function_call")] | Annotated[CustomToolCall, Tag("custom_call")], Discriminator(_call_kind)
]


class AssistantMessage(Taken):
    """An earlier answer; its content may be absent where it called tools or refused."""

    role: Literal["assistant"]
    content: SaidContent | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[AnyToolCall], Field(max_length=PARTS_LIMIT)] | None = None
    function_call: CalledFunction | None = None


class ToolMessage(Taken):
    """What a tool returned."""

    role: Literal["tool"]
    content: TextContent
    tool_call_id: Name | None = None


class FunctionMessage(Taken):
    """What a function returned; the older form of a tool's message."""

    role: Literal["function"]
    content: TextContent | None = None
    name: Name


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


@dataclass(frozen=True)
class Turn:
    """What the model reads as one turn; content: text, or parts with images."""

    role: Role
    content: str | Sequence[TextPart | ImagePart]


def turns_of(messages: Iterable[Message]) -> list[Turn]:
    """The turns of a conversation, one for each message. A tool's result is a user's turn that names the function."""
    names: dict[str | None, str] = {}
    turns = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            names |= {call.id: call.called.name for call in message.tool_calls or ()}
            turns.append(Turn("assistant", _said(message)))
        elif isinstance(message, ToolMessage):
            turns.append(_result(names.get(message.tool_call_id, "the tool"), message.content))
        elif isinstance(message, FunctionMessage):
            turns.append(_result(message.name, message.content or ""))
        elif isinstance(message, UserMessage):
            turns.append(Turn("user", message.content))
        else:
            turns.append(Turn("system", message.content))
    return turns


def _said(message: AssistantMessage) -> str:
    """The text of an earlier answer: what it said or refused, then its calls."""
    content = message.content or ""
    if not isinstance(content, str):
        content = "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
    calls = [call.called.text for call in message.tool_calls or ()]
    calls += [message.function_call.text] if message.function_call else []
    return "\n".join(text for text in (content, message.refusal, *calls) if text)


def _result(name: str, content: str | list[TextPart]) -> Turn:
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    return Turn("user", f"Result of {name}:\n{text}")
