"""What the keywords of one schema may not say, because llguidance would get it wrong, or never be done with it."""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from lingbi.api_errors import BadRequest

UNSERVED = frozenset(
    "not if then else uniqueItems contains minContains maxContains propertyNames dependentRequired dependentSchemas "
    "dependencies unevaluatedItems unevaluatedProperties $dynamicRef $recursiveRef".split()
)
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid uri".split())
EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
NUMBERS = ("minimum", "maximum", "multipleOf", *EXCLUSIVE)
EXACT = 1 << 53  # llguidance reads numbers as doubles, which have gaps beyond
CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")  # all that JSON has no short escape for
# The same as a pattern may have it: llguidance would leave it out. Only classes that also have others are held to.
CLASS = re.compile(r"\[(?:\^[^\]]*|[^\]]*-[^\]]*)\]")
CONTROL_ESCAPE = re.compile(CONTROL.pattern + r"|\\(?:[av]|(?:x|u00)(?:0[0-7bBeEfF]|1[0-9a-fA-F]|7[fF]))")
MULTIPLES = 100_000  # remainders that are told apart, which takes 0.2 s and 20 to 30 MB
WORD = 1 << 32  # llguidance multiplies what two schemas have for multipleOf, and does not notice an overflow
TINY = 1e-30


def check_keywords(schema: dict[str, Any], place: str, is_strict: bool) -> None:
    """Refuse what one schema says, with the keyword's place. is_strict: also what could be passed over."""
    if is_strict:
        _check_served(schema, place)
    if "type" in schema:
        _check_type(schema["type"], f"{place}.type")
    for word in NUMBERS:
        if word in schema:
            _check_number(schema[word], f"{place}.{word}", is_flag=word in EXCLUSIVE)
    for word in ("const", "enum"):
        if word in schema:
            _check_value(schema[word], f"{place}.{word}")
    for pattern, where in patterns_of(schema, place):
        if not isinstance(pattern, str):
            raise refusal(where, "must be a regular expression as a string")
        if CONTROL_ESCAPE.search(CLASS.sub("", pattern)):
            raise refusal(where, "has a control character, which no answer has")


def patterns_of(schema: dict[str, Any], place: str) -> Iterator[tuple[Any, str]]:
    """A schema's regular expressions, also those that names of properties must match, with their places."""
    if "pattern" in schema:
        yield schema["pattern"], f"{place}.pattern"
    for pattern in schema.get("patternProperties", ()):
        yield pattern, f"{place}.patternProperties.{pattern}"


def _check_served(schema: dict[str, Any], place: str) -> None:
    unserved = next((word for word in schema if word in UNSERVED), None)
    if unserved:
        raise refusal(f"{place}.{unserved}", "cannot be held to; leave it out and check it in the answer")
    name = schema.get("format")
    if name is not None and not (isinstance(name, str) and name in FORMATS):
        raise refusal(
            f"{place}.format", f"must be one of {', '.join(sorted(FORMATS))}, or left out (got {str(name)[:60]!r})"
        )
    _check_least(schema, place)


def _check_type(value: Any, place: str) -> None:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        raise refusal(place, f"must be one of {', '.join(TYPES)}, or a list of them (got {str(value)[:60]!r})")


def _check_least(schema: dict[str, Any], place: str) -> None:
    """Refuse a least number of properties that a name which comes twice would count for."""
    least, required = schema.get("minProperties"), schema.get("required", [])
    if isinstance(least, int) and isinstance(required, list):
        named = len({name for name in required if isinstance(name, str)})
        if least > named + 1:
            raise refusal(
                f"{place}.minProperties",
                f"cannot be held to beyond {named + 1}, one more than required names, for other names may come twice "
                f"(got {least}); name more properties in required",
            )


def _check_number(value: Any, place: str, is_flag: bool) -> None:
    """is_flag: whether it may be a boolean, as in draft 4."""
    if isinstance(value, bool) and is_flag:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(place, f"must be a number (got {str(value)[:60]!r})")
    _check_exact(value, place)


def _check_exact(value: float, place: str) -> None:
    if not abs(value) <= EXACT:
        raise refusal(place, f"has a number beyond {EXACT}, which cannot be held to; leave it out")


def _check_value(value: Any, place: str) -> None:
    """Refuse what is in a value and cannot be in an answer."""
    for part in _parts(value):
        if isinstance(part, str) and CONTROL.search(part):
            raise refusal(place, f"has a control character, which no answer has (got {part[:60]!r})")
        if isinstance(part, int) and not isinstance(part, bool):
            _check_exact(part, place)


def _parts(value: Any) -> Iterator[Any]:
    left = [value]
    while left:
        part = left.pop()
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        yield part


def check_multiples(found: dict[str, float]) -> None:
    """Refuse what schemas have for multipleOf, by their places, if numbers that are of all of them are hard to tell."""
    exact = {place: abs(Decimal(str(value))) for place, value in found.items() if value}
    decimals = max((max(0, -int(value.normalize().as_tuple().exponent)) for value in exact.values()), default=0)
    joint = 1
    for place, value in exact.items():
        number = int(value.scaleb(decimals))
        product, joint = joint * number, math.lcm(joint, number)
        if _significant(joint, decimals) > MULTIPLES or product >= WORD:
            raise refusal(place, f"has too many digits, alone or with others of this schema (got {value:f}); use fewer")


def _significant(number: int, decimals: int) -> int:
    """A number without the decimals that are zeros, as a whole one."""
    while decimals and number % 10 == 0:
        number, decimals = number // 10, decimals - 1
    return number


def sharpen(schema: dict[str, Any]) -> None:
    """Move exclusive bounds that are whole numbers a little, since llguidance allows some of them themselves.

    From 0 by 1e-30, from others to the next double; also bounds of draft 4, where these keywords are flags.
    """
    for word, inclusive in EXCLUSIVE.items():
        bound = schema.get(word)
        if bound is True:
            bound = schema.get(inclusive)
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != int(bound):
            continue
        sign = 1 if word == "exclusiveMinimum" else -1
        if sign * bound >= 0:
            schema[word] = math.nextafter(bound, sign * math.inf) if bound else sign * TINY


def refusal(place: str, sentence: str) -> BadRequest:
    return BadRequest(f"{place}: {sentence}", place)
