"""The files in a multipart body, as it comes in: names and bytes, never a whole file in memory; and its short texts."""

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from lingbi_ui.guard.questions import Unfit

MAX_NAME_BYTES = 120
BOUNDARY_BYTES = 200
MAX_FIELDS, MAX_FIELD_BYTES = 20, 1000
HEADER_EVENTS = ("header_field", "header_value", "header_end", "headers_finished")


@dataclass
class Piece:
    """name: at the beginning of a file; data: more of it; is_end: it is whole."""

    name: str | None = None
    data: bytes = b""
    is_end: bool = False


@dataclass
class _Head:
    field: bytes = b""
    value: bytes = b""
    disposition: bytes = b""
    name: str = ""
    is_file: bool = False


@dataclass
class Parts:
    """Turns chunks of a body into pieces of files. Raises Unfit at what is no such body.

    fields: the texts that have come so far.
    """

    content_type: str
    max_files: int
    is_whole: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    _text: bytearray = field(default_factory=bytearray)
    _head: _Head = field(default_factory=_Head)
    _found: list[Piece] = field(default_factory=list)
    _files: int = 0

    def __post_init__(self) -> None:
        kind, options = parse_options_header(self.content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) < BOUNDARY_BYTES:
            raise Unfit
        names = ("part_begin", "part_data", "part_end", *HEADER_EVENTS, "end")
        self._parser = MultipartParser(boundary, {f"on_{name}": getattr(self, f"_{name}") for name in names})  # type: ignore[arg-type,unused-ignore]

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces that came with a chunk."""
        self._found = []
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise Unfit from None
        return self._found

    def _part_begin(self) -> None:
        self._head = _Head()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._head.field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._head.value += data[start:end]

    def _header_end(self) -> None:
        if self._head.field.lower() == b"content-disposition":
            self._head.disposition = self._head.value
        self._head.field = self._head.value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._head.disposition)
        self._head.is_file = b"filename" in options
        self._head.name, self._text = options.get(b"name", b"").decode("utf-8", "replace"), bytearray()
        if self._head.is_file:
            self._files += 1
            if self._files > self.max_files:
                raise Unfit("pictures_many", 413)
            self._found.append(Piece(name=safe_name(options[b"filename"].decode("utf-8", "replace"))))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._head.is_file:
            self._found.append(Piece(data=data[start:end]))
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES or len(self.fields) >= MAX_FIELDS:
            raise Unfit

    def _part_end(self) -> None:
        if self._head.is_file:
            self._found.append(Piece(is_end=True))
        else:
            self.fields[self._head.name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_whole = True


def safe_name(name: str) -> str:
    """A name for a file: the last part of a path, without what a file system or a page could take for more."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isalnum() or letter in " ._-(),").strip(" .")
    while len(kept.encode()) > MAX_NAME_BYTES:  # its end says what it is
        kept = kept[1:]
    return kept.strip(" .") or "picture"
