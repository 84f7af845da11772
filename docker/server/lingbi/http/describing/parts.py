"""How operations, answers and errors are written in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from lingbi.api_errors import NotReady, Refusal, UnknownKey, VisitorEnded
from lingbi.http.protocol.answers import ErrorBody

Json = dict[str, Any]
KEYED: list[dict[str, list[str]]] = [{"key": []}]
REF = "#/components/schemas/{model}"
LOCKED_OUT = (UnknownKey, VisitorEnded)
ANYWHERE = (*LOCKED_OUT, NotReady)


def ref(model: type) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def json_of(description: str, model: type) -> Json:
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


# The HTTP parser answers this itself when it finds no request that could be answered in JSON.
_NO_HTTP = {"text/plain": {"schema": {"type": "string", "const": "Invalid HTTP request received."}}}


def errors_of(*faults: type[Refusal]) -> Json:
    """{status: response}; classes that share a status are described together."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        found.setdefault(str(fault.status), []).append(f"{fault.code}: {fault.__doc__}")
    responses = {status: json_of("\n".join(texts), ErrorBody) for status, texts in found.items()}
    bad = responses.setdefault("400", {"description": "What was sent is no HTTP", "content": {}})
    bad["content"] = bad["content"] | _NO_HTTP
    return responses


def open_to_all(name: str, responses: Json) -> Json:
    return {"operationId": name, "security": [], "responses": responses | errors_of()}


def keyed(name: str, answer: type, *faults: type[Refusal]) -> Json:
    return described(name, json_of("The answer", answer), *faults)


def described(name: str, answered: Json, *faults: type[Refusal]) -> Json:
    return {"operationId": name, "security": KEYED, "responses": {"200": answered} | errors_of(*ANYWHERE, *faults)}


def query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
