"""Builds the OpenAPI document, which describes exactly what the worker serves."""

from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    Busy,
    EngineFault,
    ImageError,
    NotReady,
    Refusal,
    TooLong,
    UnknownKey,
    UnknownModel,
    UnsupportedEncoding,
)
from lingbi.http.protocol.answers import ChatChunk, ChatCompletion, Completion, ErrorBody, Model, ModelList
from lingbi.http.protocol.requests import ChatRequest, CompletionRequest
from lingbi.http.protocol.responses import ResponseAnswer, ResponseRequest
from lingbi.http.protocol.status import Live, Ready

Json = dict[str, Any]
VERSION = "3.1.0"
KEYED: list[dict[str, list[str]]] = [{"key": []}]
REF = "#/components/schemas/{model}"
ANYWHERE = (UnknownKey, NotReady)
BODY = (BadRequest, BodyTimeout, BodyTooLarge, UnsupportedEncoding)
GENERATION = (*ANYWHERE, *BODY, ImageError, TooLong, UnknownModel, Busy, EngineFault)
REQUESTS: tuple[type[BaseModel], ...] = (ChatRequest, CompletionRequest, ResponseRequest)
ANSWERS: tuple[type[BaseModel], ...] = (
    ChatCompletion,
    ChatChunk,
    Completion,
    ResponseAnswer,
    Model,
    ModelList,
    Live,
    Ready,
    ErrorBody,
)


@lru_cache(maxsize=1)
def describe(model: str) -> Json:
    """The document as JSON data, for a server of this model."""
    return {
        "openapi": VERSION,
        "info": {"title": "lingbi", "version": "1", "description": "InternLM-XComposer2 over the OpenAI API"},
        "paths": {
            "/v1/chat/completions": {"post": _generation("chat", ChatRequest, ChatCompletion, "chunks: ChatChunk")},
            "/v1/completions": {"post": _generation("complete", CompletionRequest, Completion, "chunks: Completion")},
            "/v1/responses": {"post": _generation("respond", ResponseRequest, ResponseAnswer, "events by name")},
            "/v1/models": {"get": _keyed("models", ModelList)},
            "/v1/models/{model}": {
                "get": _keyed("model", Model, UnknownModel) | {"parameters": [_model_parameter(model)]}
            },
            "/live": {"get": _open("live", {"200": _json("The process answers", Live)})},
            "/health": {"get": _open("health", {"200": _json("The process answers", Live)})},
            "/ready": {"get": _open("ready", {"200": _json("Ready", Ready), "503": _json("Not ready", Ready)})},
            "/metrics": {"get": _open("metrics", {"200": _METRICS})},
            "/openapi.json": {"get": _described("openapi", _DOCUMENT)},
        },
        "components": {"schemas": _schemas(model), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


_METRICS = {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}

_DOCUMENT = {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}


def _model_parameter(model: str) -> Json:
    return {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": [model]}}


def _schemas(model: str) -> Json:
    pairs: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((request, "validation") for request in REQUESTS),
        *((answer, "serialization") for answer in ANSWERS),
    ]
    schemas: Json = models_json_schema(pairs, ref_template=REF)[1]["$defs"]
    for request in REQUESTS:
        schemas[request.__name__]["properties"]["model"]["enum"] = [model]
    return schemas


def _ref(model: type) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _json(description: str, model: type) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


# The HTTP parser answers this itself when it finds no request that could be answered in JSON.
_NO_HTTP = {"text/plain": {"schema": {"type": "string", "const": "Invalid HTTP request received."}}}


def _errors(*faults: type[Refusal]) -> Json:
    """{status: response}; classes that share a status are described together."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        found.setdefault(str(fault.status), []).append(f"{fault.code}: {fault.__doc__}")
    responses = {status: _json("\n".join(texts), ErrorBody) for status, texts in found.items()}
    bad = responses.setdefault("400", {"description": "What was sent is no HTTP", "content": {}})
    bad["content"] = bad["content"] | _NO_HTTP
    return responses


def _open(name: str, responses: Json) -> Json:
    return {"operationId": name, "security": [], "responses": responses | _errors()}


def _keyed(name: str, answer: type, *faults: type[Refusal]) -> Json:
    return _described(name, _json("The answer", answer), *faults)


def _described(name: str, answered: Json, *faults: type[Refusal]) -> Json:
    return {"operationId": name, "security": KEYED, "responses": {"200": answered} | _errors(*ANYWHERE, *faults)}


def _generation(name: str, body: type, answer: type, events: str) -> Json:
    answered = _json("The answer, or a stream of events", answer)
    answered["content"]["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    return {
        "operationId": name,
        "security": KEYED,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": {"200": answered} | _errors(*GENERATION),
    }
