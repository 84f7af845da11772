"""The OpenAPI document: exactly what is served."""

from functools import lru_cache

from pydantic.json_schema import models_json_schema

from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    Busy,
    EngineFault,
    ImageError,
    NotReady,
    TooLong,
    UnknownKey,
    UnknownModel,
)
from lingbi.http.protocol import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ErrorBody,
    Live,
    Model,
    ModelList,
    Ready,
)

VERSION = "3.1.0"
KEYED = [{"key": []}]
REF = "#/components/schemas/{model}"
ANYWHERE = (UnknownKey, NotReady)
GENERATION = (*ANYWHERE, BadRequest, ImageError, TooLong, UnknownModel, BodyTimeout, BodyTooLarge, Busy, EngineFault)
REQUESTS = (ChatRequest, CompletionRequest)
ANSWERS = (ChatCompletion, ChatChunk, Completion, Model, ModelList, Live, Ready, ErrorBody)


@lru_cache(maxsize=1)
def describe(model: str) -> dict:
    """The document as JSON data, for a server of this model."""
    return {
        "openapi": VERSION,
        "info": {"title": "lingbi", "version": "1", "description": "InternLM-XComposer2 over the OpenAI API"},
        "paths": {
            "/v1/chat/completions": {"post": _generation("chat", ChatRequest, ChatCompletion, "chunks: ChatChunk")},
            "/v1/completions": {"post": _generation("complete", CompletionRequest, Completion, "chunks: Completion")},
            "/v1/models": {"get": _keyed("models", ModelList)},
            "/v1/models/{model}": {
                "get": _keyed("model", Model, UnknownModel) | {"parameters": [_model_parameter(model)]}
            },
            "/live": {"get": _open("live", {"200": _json("The process answers", Live)})},
            "/ready": {"get": _open("ready", {"200": _json("Ready", Ready), "503": _json("Not ready", Ready)})},
            "/metrics": {"get": _open("metrics", {"200": _METRICS})},
            "/openapi.json": {"get": _described("openapi", _DOCUMENT)},
        },
        "components": {"schemas": _schemas(model), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


_METRICS = {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}

_DOCUMENT = {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}


def _model_parameter(model: str) -> dict:
    return {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": [model]}}


def _schemas(model: str) -> dict:
    pairs = [(model, "validation") for model in REQUESTS] + [(model, "serialization") for model in ANSWERS]
    schemas = models_json_schema(pairs, ref_template=REF)[1]["$defs"]
    for request in REQUESTS:
        schemas[request.__name__]["properties"]["model"]["enum"] = [model]
    return schemas


def _ref(model: type) -> dict:
    return {"$ref": REF.format(model=model.__name__)}


def _json(description: str, model: type) -> dict:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


# The HTTP parser's own answer, before there is a request that could be answered in JSON.
_NO_HTTP = {"text/plain": {"schema": {"type": "string", "const": "Invalid HTTP request received."}}}


def _errors(*faults) -> dict:
    """{status: response}; classes of one status are told together."""
    found = {}
    for fault in faults:
        found.setdefault(str(fault.status), []).append(f"{fault.code}: {fault.__doc__}")
    responses = {status: _json("\n".join(texts), ErrorBody) for status, texts in found.items()}
    bad = responses.setdefault("400", {"description": "What was sent is no HTTP", "content": {}})
    bad["content"] = bad["content"] | _NO_HTTP
    return responses


def _open(name: str, responses: dict) -> dict:
    return {"operationId": name, "security": [], "responses": responses | _errors()}


def _keyed(name: str, answer: type, *faults) -> dict:
    return _described(name, _json("The answer", answer), *faults)


def _described(name: str, answered: dict, *faults) -> dict:
    return {"operationId": name, "security": KEYED, "responses": {"200": answered} | _errors(*ANYWHERE, *faults)}


def _generation(name: str, body: type, answer: type, events: str) -> dict:
    answered = _json("The answer, or a stream of events", answer)
    answered["content"]["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    return {
        "operationId": name,
        "security": KEYED,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": {"200": answered} | _errors(*GENERATION),
    }
