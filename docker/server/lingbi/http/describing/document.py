"""Builds the OpenAPI document, which describes exactly what the worker serves."""

from functools import lru_cache
from typing import Literal

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
    OverQuota,
    QuotasAway,
    Refusal,
    TooLong,
    UnknownAccount,
    UnknownModel,
    UnsupportedEncoding,
)
from lingbi.http.admin.usage import PARAMETERS
from lingbi.http.batch.batches import BatchRequest
from lingbi.http.describing.parts import (
    ANYWHERE,
    KEYED,
    LOCKED_OUT,
    REF,
    Json,
    described,
    errors_of,
    in_path,
    json_of,
    keyed,
    open_to_all,
    query,
    ref,
)
from lingbi.http.describing.stored import ANSWERS as STORED
from lingbi.http.describing.stored import stored_paths
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
from lingbi.http.protocol.usage import Usage, UsageList

VERSION = "3.1.0"
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
CHANGES: tuple[type[BaseModel], ...] = (
    NewKey,
    KeyChange,
    Rotation,
    Nothing,
    NewGroup,
    GroupChange,
    BatchRequest,
)
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
    *STORED,
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
            "/v1/models": {"get": keyed("models", ModelList)},
            "/v1/models/{model}": {
                "get": keyed("model", Model, ModelNotAllowed, UnknownModel) | {"parameters": [_model_parameter(model)]}
            },
            "/v1/usage": {"get": keyed("usage", Usage, BadRequest, DatabaseSilent)},
            "/v1/admin/usage": {
                "get": keyed("admin_usage", UsageList, NotPermitted, BadRequest, DatabaseSilent)
                | {"parameters": _USAGE_PARAMETERS}
            },
            "/v1/admin/queue": {"get": keyed("admin_queue", Queue, NotPermitted)},
            "/live": {"get": open_to_all("live", {"200": json_of("The process answers", Live)})},
            "/health": {"get": open_to_all("health", {"200": json_of("The process answers", Live)})},
            "/ready": {
                "get": open_to_all("ready", {"200": json_of("Ready", Ready), "503": json_of("Not ready", Ready)})
            },
            "/metrics": {"get": open_to_all("metrics", {"200": _METRICS})},
            "/openapi.json": {"get": described("openapi", _DOCUMENT)},
            **_administration(),
            **stored_paths(),
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


def _generation(name: str, body: type, answer: type, events: str) -> Json:
    answered = json_of("The answer, or a stream of events", answer)
    answered["content"]["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    return {
        "operationId": name,
        "security": KEYED,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(body)}}},
        "responses": {"200": answered} | errors_of(*GENERATION),
    }


def _administration() -> Json:
    """Paths of administrators, for whom alone they are."""
    keys, groups = "/v1/admin/keys", "/v1/admin/groups"
    return {
        keys: {
            "get": _admin("keys", KeyInfos) | {"parameters": [query("group", {"type": "string"}), _LIMIT]},
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
            | {"parameters": [*_NAMED["parameters"], query("keep_keys", {"type": "boolean"})]},
        },
    }


_LIMIT = query("limit", {"type": "integer", "minimum": 1, "maximum": 100_000})
_NAMED = {"parameters": [in_path("name")]}


def _admin(name: str, answer: type, body: type | None = None, status: str = "200", *faults: type[Refusal]) -> Json:
    """An operation of administrators. body: what it takes, if anything."""
    errors = errors_of(*LOCKED_OUT, BadRequest, NotPermitted, *_OF_BODY, DatabaseSilent, *faults)
    described: Json = {
        "operationId": name,
        "security": KEYED,
        "responses": {status: json_of("The answer", answer)} | errors,
    }
    if body:
        described["requestBody"] = {"content": {"application/json": {"schema": ref(body)}}}
    return described


_OF_BODY = (BodyTimeout, BodyTooLarge)
