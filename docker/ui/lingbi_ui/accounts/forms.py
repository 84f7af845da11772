"""What a form brings: small, and read into what the API takes. Whether a value is allowed is the API's to say."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from lingbi_ui.accounts.rows import MEASURES, PERIODS
from lingbi_ui.accounts.words import WORDS

MAX_FIELDS, MAX_DIGITS = 60, 40
Fields = dict[str, str]
OF_THE_API = {shown: word for word in ("all", "none") for shown in WORDS[word]}  # its words, by those of the pages


class Unfit(Exception):
    """A field cannot be read; field: the name of the words for it, seen: what stood there."""

    def __init__(self, field: str, seen: str):
        super().__init__(field)
        self.field, self.seen = field, seen[:80]


def fields_of(body: bytes) -> Fields:
    """The fields of a form as browsers send it; of two with one name, the last. Raises Unfit."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:  # too many, or no UTF-8
        raise Unfit("form", str(error)) from None
    return {name: value.strip() for name, value in pairs}


def whole(fields: Mapping[str, str], name: str) -> int | None:
    """A number, or None for an empty field. Raises Unfit."""
    text = fields.get(name, "").replace(",", "").replace(" ", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise Unfit(name, fields[name])
    return int(text)


def names(fields: Mapping[str, str], name: str) -> list[str] | None:
    """Names with commas, or None for an empty field. A word in place of names, such as 全部, becomes the API's."""
    parts = [part.strip() for part in fields.get(name, "").replace("，", ",").split(",")]
    found = [part for part in parts if part]
    return [OF_THE_API.get(found[0], found[0])] if len(found) == 1 else found or None


def limits(fields: Mapping[str, str], subject_kind: str) -> dict[str, dict[str, str | None]]:
    """Those of fields as `key:tokens:month`, as they were written (100k, 2M); an empty one takes a limit away."""
    return {
        measure: {period: fields.get(f"{subject_kind}:{measure}:{period}") or None for period in PERIODS}
        for measure in MEASURES
    }
