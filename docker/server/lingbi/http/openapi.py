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
    Conflict,
    DatabaseSilent,
    EngineFault,
    ImageError,
    ModelNotAllowed,
    NotPermitted,
    NotReady,
    OverQuota,
    QuotasAway,
    Refusal,
    TooLong,
    UnknownAccount,
    UnknownKey,
    UnknownModel,
    UnsupportedEncoding,
)
from lingbi.http.admin.usage import PARAMETERS
from lingbi.http.protocol.accounts import (
    GroupChange,
    GroupInfo,
    GroupInfos,
    KeyChange,
    KeyInfo,
    KeyInfos,
    MadeKey,
    NewGroup,
    NewKey,
    Nothing,
    RemovedGroup,
    Rotation,
)
from lingbi.http.protocol.answers import ChatChunk, ChatCompletion, Completion, ErrorBody, Model, ModelList
from lingbi.http.protocol.queue import Queue
from lingbi.http.protocol.requests import ChatRequest, CompletionRequest
from lingbi.http.protocol.responses import ResponseAnswer, ResponseRequest
from lingbi.http.protocol.status import Live, Ready
from lingbi.http.protocol.usage import Usage
from lingbi.http.protocol.usage_report import UsageList

Json = dict[str, Any]
VERSION = "3.1.0"
KEYED: list[dict[str, list[str]]] = [{"key": []}]
REF = "#/components/schemas/{model}"
ANYWHERE = (UnknownKey, NotReady)
BODY = (BadRequest, BodyTimeout, BodyTooLarge, UnsupportedEncoding)
GENERATION = (
    *ANYWHERE,
    *BODY,
    ImageError,
    TooLong,
    ModelNotAllowed,
    UnknownModel,
    Busy,
    OverQuota,
    QuotasAway,
    EngineFault,
)
REQUESTS: tuple[type[BaseModel], ...] = (ChatRequest, CompletionRequest, ResponseRequest)
CHANGES: tuple[type[BaseModel], ...] = (NewKey, KeyChange, Rotation, Nothing, NewGroup, GroupChange)
ANSWERS: tuple[type[BaseModel], ...] = (
    ChatCompletion,
    ChatChunk,
    Completion,
    ResponseAnswer,
    Model,
    ModelList,
    UsageList,
    Queue,
    Live,
    Ready,
    Usage,
    ErrorBody,
    MadeKey,
    KeyInfo,
    KeyInfos,
    GroupInfo,
    GroupInfos,
    RemovedGroup,
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
                "get": _keyed("model", Model, ModelNotAllowed, UnknownModel) | {"parameters": [_model_parameter(model)]}
            },
            "/v1/usage": {"get": _keyed("usage", Usage, BadRequest, QuotasAway)},
            "/v1/admin/usage": {
                "get": _keyed("admin_usage", UsageList, NotPermitted, BadRequest) | {"parameters": _USAGE_PARAMETERS}
            },
            "/v1/admin/queue": {"get": _keyed("admin_queue", Queue, NotPermitted)},
            "/live": {"get": _open("live", {"200": _json("The process answers", Live)})},
            "/health": {"get": _open("health", {"200": _json("The process answers", Live)})},
            "/ready": {"get": _open("ready", {"200": _json("Ready", Ready), "503": _json("Not ready", Ready)})},
            "/metrics": {"get": _open("metrics", {"200": _METRICS})},
            "/openapi.json": {"get": _described("openapi", _DOCUMENT)},
            **_administration(),
        },
        "components": {"schemas": _schemas(model), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


_USAGE_PARAMETERS: list[Json] = [
    {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
    for name, text in PARAMETERS.items()
]

_METRICS = {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}

_DOCUMENT = {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}


def _model_parameter(model: str) -> Json:
    return {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": [model]}}


def _schemas(model: str) -> Json:
    pairs: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((request, "validation") for request in (*REQUESTS, *CHANGES)),
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


def _administration() -> Json:
    """Paths of administrators, for whom alone they are."""
    keys, groups = "/v1/admin/keys", "/v1/admin/groups"
    return {
        keys: {
            "get": _admin("keys", KeyInfos) | {"parameters": [_query("group", {"type": "string"}), _LIMIT]},
            "post": _admin("add_key", MadeKey, NewKey, "201", Conflict),
        },
        f"{keys}/{{name}}": {
            "get": _admin("key", KeyInfo, None, "200", UnknownAccount) | _NAMED,
            "patch": _admin("change_key", KeyInfo, KeyChange, "200", UnknownAccount, Conflict) | _NAMED,
        },
        f"{keys}/{{name}}/rotate": {
            "post": _admin("rotate_key", MadeKey, Rotation, "200", UnknownAccount, Conflict) | _NAMED
        },
        f"{keys}/{{name}}/revoke": {
            "post": _admin("revoke_key", KeyInfo, Nothing, "200", UnknownAccount, Conflict) | _NAMED
        },
        groups: {
            "get": _admin("groups", GroupInfos) | {"parameters": [_LIMIT]},
            "post": _admin("add_group", GroupInfo, NewGroup, "201", Conflict),
        },
        f"{groups}/{{name}}": {
            "get": _admin("group", GroupInfo, None, "200", UnknownAccount) | _NAMED,
            "patch": _admin("change_group", GroupInfo, GroupChange, "200", UnknownAccount) | _NAMED,
            "delete": _admin("remove_group", RemovedGroup, None, "200", UnknownAccount, Conflict)
            | {"parameters": [*_NAMED["parameters"], _query("keep_keys", {"type": "boolean"})]},
        },
    }


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


_LIMIT = _query("limit", {"type": "integer", "minimum": 1, "maximum": 100_000})
_NAMED = {
    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]
}


def _admin(name: str, answer: type, body: type | None = None, status: str = "200", *faults: type[Refusal]) -> Json:
    """An operation of administrators. body: what it takes, if anything."""
    errors = _errors(*ANYWHERE[:1], BadRequest, NotPermitted, *_OF_BODY, DatabaseSilent, *faults)
    described: Json = {
        "operationId": name,
        "security": KEYED,
        "responses": {status: _json("The answer", answer)} | errors,
    }
    if body:
        described["requestBody"] = {"content": {"application/json": {"schema": _ref(body)}}}
    return described


_OF_BODY = (BodyTimeout, BodyTooLarge)
