"""The form that a request asks for, as data."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from lingbi.api_errors import BadRequest

SOURCE_BYTES = 32 << 10
ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class Form:
    """What an answer must be.

    kind: what the source is; source: a JSON Schema, a regular expression, or texts of which the answer is one; place:
    of the source in the request; is_strict: whether a schema's keywords that cannot be held to are refused, instead of
    being passed over.
    """

    kind: Literal["schema", "regex", "choice"]
    source: Any
    place: str
    is_strict: bool = True

    @property
    def key(self) -> tuple[str, str, bool]:
        """Two forms with the same key allow the same answers. Raises BadRequest as `written`."""
        return self.kind, self.written, self.is_strict

    @property
    def written(self) -> str:
        """The source as JSON. Raises BadRequest where it is none, or too large."""
        try:
            written = json.dumps(self.source, ensure_ascii=False, allow_nan=False)
            size = len(written.encode())
        except UnicodeEncodeError:
            raise BadRequest(f"{self.place}: has half of a surrogate pair, which is no text", self.place) from None
        except (ValueError, RecursionError):
            raise BadRequest(f"{self.place}: is no JSON, or nested too deep", self.place) from None
        if size > SOURCE_BYTES:
            sentence = f"has {size} bytes, and at most {SOURCE_BYTES} are read; ask for less"
            raise BadRequest(f"{self.place}: {sentence}", self.place)
        return written
