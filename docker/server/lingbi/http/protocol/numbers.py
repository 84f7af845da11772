"""Numbers in queries and forms."""

from lingbi.api_errors import BadRequest

MAX_DIGITS = 9


def number_of(text: str, name: str, least: int, most: int) -> int:
    """A whole number. name: of the parameter or field. Raises BadRequest."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None
    if number is None or not least <= number <= most:
        raise BadRequest(f"{name} is {text[:20]!r}; give a number from {least} to {most}", name.split(".")[0])
    return number
