"""The check that a scene's objects, listed as JSON, are right: the words of each as `scenes` reads them in sentences.

>>> things = (Thing('red', 'circle'),)
>>> json_fault(things, '{"objects": [{"colour": "red", "shape": "circle", "position": "centre"}]}') is None
True
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from lingbi.images.scenes import COLOUR_WORDS, SHAPE_WORDS, Thing, is_at, named, named_positions

COLOUR, SHAPE, POSITION = "colou?r|颜色", "shape|形状", "position|place|location|位置"
Said = tuple[Counter[str], Counter[str], list[tuple[int, int]]]  # the colours, shapes and places that an object names


def json_fault(about: Sequence[Thing], answer: str) -> str | None:
    """What is wrong with a JSON list of these objects, or None.

    The list may be the only property of an object; each of its objects has a colour, a shape and a position, in English or
    Chinese, in any order of properties.
    """
    try:
        found = json.loads(answer)
    except ValueError as error:
        return f"no JSON ({error}): {answer!r}"
    listed = next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found
    said = [_said(one) for one in listed] if isinstance(listed, list) else [None]
    if None in said:
        return f"no list of objects with colour, shape and position: {answer!r}"
    orders = permutations(about) if len(said) == len(about) else ()
    if any(all(_is(thing, one) for thing, one in zip(order, said, strict=True) if one) for order in orders):
        return None
    return f"objects: the answer has {answer}, the picture {[(t.colour, t.shape, t.position) for t in about]}"


def _said(one: Any) -> Said | None:
    """What an object of the list names; None where it has not the three properties as text."""
    if not isinstance(one, dict):
        return None
    words = [
        next((value for name, value in one.items() if re.fullmatch(pattern, name) and isinstance(value, str)), None)
        for pattern in (COLOUR, SHAPE, POSITION)
    ]
    colour, shape, position = words
    if colour is None or shape is None or position is None:
        return None
    return named(COLOUR_WORDS, colour), named(SHAPE_WORDS, shape), named_positions(position)


def _is(thing: Thing, said: Said) -> bool:
    colours, shapes, places = said
    return (
        colours == Counter([thing.colour])
        and set(shapes) == {thing.shape}
        and len(places) == 1
        and is_at(thing, places[0])
    )
