"""What the API takes and gives: the OpenAI API's chat completions, completions and models.

Unknown fields are tolerated, as the reference API does; unusable values are not. Fields that the
reference API has and this model cannot honour are declared, so that asking for them is refused
rather than ignored. The OpenAPI document is made from these classes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SEED_LIMIT = 1 << 63
PROMPT_LIMIT = 16
STOP_LIMIT = 16
MAX_TEMPERATURE = 2.0


class Strict(BaseModel):
    """A part of a request: no text for numbers, no NaN."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class TextPart(Strict):
    """Text in a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """A picture: `data:image/…;base64,…`, or an http(s) URL that the server fetches."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(Strict):
    """What the model is told to be."""

    role: Literal["system"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]


class UserMessage(Strict):
    """A question: text, pictures, or both."""

    role: Literal["user"]
    content: str | Annotated[list[Part], Field(min_length=1)]


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]
Absent = Annotated[list[Any], Field(max_length=0)] | None
Zero = Annotated[float, Field(ge=0, le=0)] | None


class StreamOptions(Strict):
    """What a stream holds beside the answer."""

    include_usage: bool | None = False


class Sampled(Strict):
    """What chat completions and completions share."""

    model: str
    temperature: float | None = Field(0.7, ge=0, le=MAX_TEMPERATURE, description="0: always the likeliest token")
    top_p: float | None = Field(1.0, ge=0, le=1)
    top_k: int | None = Field(40, ge=0, le=1024, description="0: all tokens")
    repetition_penalty: float | None = Field(1.0, ge=0.01, le=100, description="1: none")
    seed: int | None = Field(None, ge=-SEED_LIMIT, lt=SEED_LIMIT)
    stop: str | Annotated[list[str], Field(max_length=STOP_LIMIT)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = False
    skip_special_tokens: bool | None = True
    user: str | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = Field(1, description="only 1 is served")
    presence_penalty: Zero = Field(0, description="only 0 is served; use repetition_penalty")
    frequency_penalty: Zero = Field(0, description="only 0 is served; use repetition_penalty")
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(None, description="not served")


class ChatRequest(Sampled):
    """A question to the model, with the conversation before it."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20, description="default: what the session leaves")
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20, description="the newer name of max_tokens")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Absent = Field(None, description="not served")
    functions: Absent = Field(None, description="not served")
    response_format: "TextFormat | None" = Field(None, description="only text is served")


class TextFormat(Strict):
    """The one format of answers."""

    type: Literal["text"]


class CompletionRequest(Sampled):
    """A text to go on with; no chat template is put around it."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=PROMPT_LIMIT)]
    max_tokens: int | None = Field(16, ge=1, le=1 << 20)
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = Field(None, description="served by chat completions only")
    echo: Literal[False] | None = Field(False, description="not served")
    suffix: Annotated[str, Field(max_length=0)] | None = Field(None, description="not served")
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(1, description="only 1 is served")


class Usage(BaseModel):
    """Tokens of a request; a picture counts with the tokens that it becomes, the end token does not."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


FinishReason = Literal["stop", "length"]


class TopLogprob(BaseModel):
    """A token that might have been, with its natural log probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Log probabilities of an answer's tokens."""

    content: list[TokenLogprob]


class ChatMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """The one choice of a chat completion."""

    index: int = 0
    message: ChatMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: int = 0
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(BaseModel):
    """An event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextChoice(BaseModel):
    """How one prompt goes on."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None = None


class Completion(BaseModel):
    """Texts gone on with, or an event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lingbi"


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(BaseModel):
    """What is wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Weights(BaseModel):
    """How far fetching or checking of weights is; seconds_left is null while nothing moves."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: int
    seconds_left: int | None


class OnGpu(BaseModel):
    """The engine's settings on a GPU, and the most memory that it takes there (MiB): weights, what is beside them, and
    `blocks` of KV cache."""

    session_len: int
    max_batch_size: int
    prefill_tokens: int
    quant_policy: str
    blocks: int
    weights_mib: int
    runtime_mib: int
    cache_mib: int
    total_mib: int


class OnCpu(BaseModel):
    """The CPU engine's settings, in tokens, answers and sessions, and the most memory that they take, in MiB."""

    session_len: int
    max_batch_size: int
    kept_sessions: int
    prefill_tokens: int
    weights_mib: int
    runtime_mib: int
    cache_mib: int
    total_mib: int


class Prompts(BaseModel):
    """How prompts are made: their form, the tokens that it puts around one picture and a question, and the most tiles of
    a picture, where the model has tiles."""

    form: Literal["lmdeploy", "published"]
    template_tokens: int
    hd_num: int | None = None


class Ready(BaseModel):
    """How the worker is. progress: 0 to 1 while it loads; weights: while they are fetched or checked;
    gpu, cpu: what the engine takes there; prompt: once the model is loaded."""

    status: Literal["ready", "not ready"]
    phase: str
    phase_seconds: float
    progress: float
    model: str
    engine: str
    engine_reason: str
    gpu: OnGpu | None = None
    cpu: OnCpu | None = None
    prompt: Prompts | None = None
    weights: Weights | None = None
    probe: dict[str, float] | None = None
    error: str | None = None
