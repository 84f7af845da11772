"""The OpenAPI document's part about files and batches."""

from __future__ import annotations

from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    Conflict,
    DatabaseSilent,
    InsufficientStorage,
    NotFound,
    NotPermitted,
    Refusal,
    StorageQuota,
)
from lingbi.batch.states import ENDED, OPEN
from lingbi.http.admin.batches import BATCH, BATCHES
from lingbi.http.batch.batches import MAX_PAGE as MAX_BATCHES
from lingbi.http.batch.batches import BatchRequest
from lingbi.http.batch.files import MAX_PAGE as MAX_FILES
from lingbi.http.batch.files import PURPOSES, SHORTEST_LIFE_S
from lingbi.http.describing.parts import (
    KEYED,
    LOCKED_OUT,
    Json,
    described,
    errors_of,
    in_path,
    json_of,
    keyed,
    query,
    ref,
)
from lingbi.http.protocol.stored import (
    BatchList,
    BatchObject,
    DeletedFile,
    ErrorKinds,
    FileList,
    FileObject,
    OwnedBatch,
    OwnedBatchList,
    ToldErrorKinds,
)

ANSWERS = (
    FileObject,
    FileList,
    DeletedFile,
    BatchObject,
    BatchList,
    ToldErrorKinds,
    OwnedBatch,
    OwnedBatchList,
    ErrorKinds,
)
OF_BODY = (BadRequest, BodyTimeout, BodyTooLarge)
_FILE, _BATCH = {"parameters": [in_path("file_id")]}, {"parameters": [in_path("batch_id")]}


def stored_paths() -> Json:
    """Paths of files and batches."""
    kind = query("purpose", {"type": "string"})
    return {
        "/v1/files": {
            "get": _kept("files", FileList, BadRequest) | {"parameters": [*_page(MAX_FILES), kind]},
            "post": _kept("upload_file", FileObject, *OF_BODY, StorageQuota, InsufficientStorage) | _UPLOAD,
        },
        "/v1/files/{file_id}": {
            "get": _kept("file", FileObject, NotFound) | _FILE,
            "delete": _kept("delete_file", DeletedFile, NotFound) | _FILE,
        },
        "/v1/files/{file_id}/content": {"get": described("file_content", _CONTENT, NotFound, DatabaseSilent) | _FILE},
        "/v1/batches": {
            "get": _kept("batches", BatchList, BadRequest) | {"parameters": _page(MAX_BATCHES)},
            "post": _kept("create_batch", BatchObject, *OF_BODY, NotFound)
            | {"requestBody": {"required": True, "content": {"application/json": {"schema": ref(BatchRequest)}}}},
        },
        "/v1/batches/{batch_id}": {"get": _kept("batch", BatchObject, NotFound) | _BATCH},
        "/v1/batches/{batch_id}/errors": {"get": _kept("batch_errors", ToldErrorKinds, NotFound) | _BATCH},
        "/v1/batches/{batch_id}/cancel": {"post": _kept("cancel_batch", BatchObject, NotFound, Conflict) | _BATCH},
        **_administered(),
    }


def _administered() -> Json:
    """Paths of everybody's batches, for administrators alone."""
    status = query("status", {"type": "string", "enum": [*OPEN, *ENDED]})
    filters = [query("owner", {"type": "string"}), status]
    return {
        BATCHES: {"get": _admin("admin_batches", OwnedBatchList) | {"parameters": [*_page(MAX_BATCHES), *filters]}},
        BATCH: {"get": _admin("admin_batch", OwnedBatch, NotFound) | _BATCH},
        f"{BATCH}/errors": {"get": _admin("admin_batch_errors", ErrorKinds, NotFound) | _BATCH},
        f"{BATCH}/cancel": {"post": _admin("admin_cancel_batch", OwnedBatch, NotFound, Conflict) | _BATCH},
    }


def _kept(name: str, answer: type, *faults: type[Refusal]) -> Json:
    return keyed(name, answer, *faults, DatabaseSilent)


def _admin(name: str, answer: type, *faults: type[Refusal]) -> Json:
    """An operation that a worker answers before it is ready, too."""
    errors = errors_of(*LOCKED_OUT, BadRequest, NotPermitted, DatabaseSilent, *faults)
    return {"operationId": name, "security": KEYED, "responses": {"200": json_of("The answer", answer)} | errors}


def _page(most: int) -> list[Json]:
    return [
        query("limit", {"type": "integer", "minimum": 1, "maximum": most, "default": 20}),
        query("order", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
        query("after", {"type": "string"}),
    ]


_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_LIFE_S},
    },
}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {
    "description": "What was uploaded, or a batch's results, one a line",
    "content": {"application/octet-stream": _BYTES, "application/jsonl": _BYTES},
}
