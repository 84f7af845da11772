"""The form that a request asks for, as data."""

import json
from dataclasses import dataclass
from typing import Any, Literal

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
        """Two forms with the same key allow the same answers. Raises ValueError and RecursionError for no JSON."""
        return self.kind, json.dumps(self.source, ensure_ascii=False), self.is_strict
