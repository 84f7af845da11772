"""What /v1/files and /v1/batches give, as OpenAI's reference has it. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

FilePurpose = Literal["batch", "vision", "user_data", "batch_output"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class FileObject(BaseModel):
    """A file of a key. bytes: its size; expires_at: when it goes."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: FilePurpose
    status: Literal["processed"]


class FileList(BaseModel):
    """A page of a key's files. has_more: there are files after it."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchFault(BaseModel):
    """What is wrong with a line of an input file; line: from 1, null where it is the whole file.

    message: null for an administrator who is not the owner, as its words may be the owner's.
    """

    code: str
    message: str | None
    line: int | None
    param: str | None


class BatchFaults(BaseModel):
    """Why an input file is no batch."""

    object: Literal["list"]
    data: list[BatchFault]


class LineCounts(BaseModel):
    """Lines of a batch. completed: answered with 200; failed: in the errors file."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch of a key."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: LineCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of a key's batches. has_more: there are batches after it."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ErrorKind(BaseModel):
    """Lines of a batch that failed of the same. status_code: of their answers, null where they were not asked."""

    status_code: int | None
    code: str | None
    count: int


class ToldErrorKind(ErrorKind):
    """The same with the first of these lines as an example."""

    custom_id: str
    message: str


class ErrorKinds(BaseModel):
    """What a batch's lines failed of, the most frequent first."""

    object: Literal["list"]
    data: list[ErrorKind]


class ToldErrorKinds(BaseModel):
    """What a batch's lines failed of, the most frequent first, with examples."""

    object: Literal["list"]
    data: list[ToldErrorKind]


class OwnedBatch(BatchObject):
    """A batch, with the name of the key that made it."""

    owner: str


class OwnedBatchList(BaseModel):
    """A page of everybody's batches. has_more: there are batches after it."""

    object: Literal["list"]
    data: list[OwnedBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool
