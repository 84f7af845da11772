"""The OpenAPI document's part about files and batches."""

from __future__ import annotations

from lingbi.api_errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    Conflict,
    InsufficientStorage,
    NotFound,
    StorageQuota,
)
from lingbi.http.batch.batches import MAX_PAGE as MAX_BATCHES
from lingbi.http.batch.batches import BatchRequest
from lingbi.http.batch.files import MAX_PAGE as MAX_FILES
from lingbi.http.batch.files import PURPOSES, SHORTEST_LIFE_S
from lingbi.http.describing.parts import Json, described, in_path, keyed, query, ref
from lingbi.http.protocol.stored import BatchList, BatchObject, DeletedFile, FileList, FileObject

ANSWERS = (FileObject, FileList, DeletedFile, BatchObject, BatchList)
OF_BODY = (BadRequest, BodyTimeout, BodyTooLarge)


def stored_paths() -> Json:
    """Paths of files and batches."""
    file, batch = in_path("file_id"), in_path("batch_id")
    of_file = {"get": keyed("file", FileObject, NotFound), "delete": keyed("delete_file", DeletedFile, NotFound)}
    kind = query("purpose", {"type": "string"})
    return {
        "/v1/files": {
            "get": keyed("files", FileList, BadRequest) | {"parameters": [*_page(MAX_FILES), kind]},
            "post": keyed("upload_file", FileObject, *OF_BODY, StorageQuota, InsufficientStorage) | _UPLOAD,
        },
        "/v1/files/{file_id}": of_file | {"parameters": [file]},
        "/v1/files/{file_id}/content": {"get": described("file_content", _CONTENT, NotFound) | {"parameters": [file]}},
        "/v1/batches": {
            "get": keyed("batches", BatchList, BadRequest) | {"parameters": _page(MAX_BATCHES)},
            "post": keyed("create_batch", BatchObject, *OF_BODY, NotFound)
            | {"requestBody": {"required": True, "content": {"application/json": {"schema": ref(BatchRequest)}}}},
        },
        "/v1/batches/{batch_id}": {"get": keyed("batch", BatchObject, NotFound), "parameters": [batch]},
        "/v1/batches/{batch_id}/cancel": {
            "post": keyed("cancel_batch", BatchObject, NotFound, Conflict) | {"parameters": [batch]}
        },
    }


def _page(most: int) -> list[Json]:
    return [
        query("limit", {"type": "integer", "minimum": 1, "maximum": most}),
        query("order", {"type": "string", "enum": ["asc", "desc"]}),
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
