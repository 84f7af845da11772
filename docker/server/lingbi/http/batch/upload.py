"""Takes an uploaded file in as it arrives: no more than one piece of it is in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from lingbi.api_errors import BadRequest, ClientGone, Refusal
from lingbi.batch.storage import Writer

MAX_FIELD_BYTES = 1000
MAX_FIELDS = 20


@dataclass
class Upload:
    """What a form held. fields: its short texts; filename: None where it had no file; size: of the file, bytes."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    size: int = 0


class Form:
    """Reads multipart/form-data piece by piece: the part `file` goes to a writer, the others are short texts.

    most_bytes: of the file; too_large: raised for a larger one.
    """

    def __init__(self, boundary: bytes, most_bytes: int, too_large: Refusal) -> None:
        self.upload, self.most_bytes, self.too_large = Upload(), most_bytes, too_large
        self.ready: list[bytes] = []  # of the file, not written yet
        self.is_whole = False  # whether its end has come
        self._name, self._is_file = "", False
        self._header, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        self._text = bytearray()
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._whole,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def feed(self, piece: bytes) -> list[bytes]:
        """Read a piece; returns what it has of the file. Raises BadRequest."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise BadRequest(f"the body is no multipart/form-data: {error}") from None
        ready, self.ready = self.ready, []
        return ready

    def _begin(self) -> None:
        self._headers, self._text = {}, bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.upload.filename is not None:
                raise BadRequest("the form has several files; send one", "file")
            self.upload.filename = options.get(b"filename", b"").decode("utf-8", "replace")[:255] or "file"
        elif len(self.upload.fields) >= MAX_FIELDS:
            raise BadRequest(f"the form has more than {MAX_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._text += data[start:end]
            if len(self._text) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"the field {self._name[:60]!r} is longer than {MAX_FIELD_BYTES} bytes", self._name[:60]
                )
            return
        self.upload.size += end - start
        if self.upload.size > self.most_bytes:
            raise self.too_large
        self.ready.append(data[start:end])

    def _end(self) -> None:
        if not self._is_file:
            self.upload.fields[self._name] = self._text.decode("utf-8", "replace")

    def _whole(self) -> None:
        self.is_whole = True


async def receive(request: Request, writer: Writer, most_bytes: int, too_large: Refusal) -> Upload:
    """Write the form's file as it arrives; returns what the form held. Raises BadRequest, too_large, ClientGone, OSError."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise BadRequest(
            f"Content-Type is {request.headers.get('content-type', 'missing')[:60]!r}; send multipart/form-data"
        )
    form = Form(options[b"boundary"], most_bytes, too_large)
    try:
        async for piece in request.stream():
            for part in form.feed(piece):
                await run_in_threadpool(writer.write, part)
    except ClientDisconnect:
        raise ClientGone from None
    if not form.is_whole:
        raise BadRequest("the form ends before its closing boundary; send it again")
    if form.upload.filename is None:
        raise BadRequest("the form has no file; send it as the field `file`", "file")
    return form.upload
