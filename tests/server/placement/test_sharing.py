"""Workers find their cards: one each while there are cards, several where memory allows; and memory is divided whole."""

from itertools import product

import pytest

from lingbi.placement.sharing import Need, put_on_cards, shares_mib, would_fit

SEVEN, TILED, SMALL = (Need("vl-7b", 20, 4), Need("4khd-7b", 22, 16), Need("vl-1_8b", 7, 3))


@pytest.mark.parametrize(
    ("needs", "rooms", "cards"),
    [
        ([SEVEN, TILED], [80], [0, 0]),
        ([SEVEN, TILED], [80, 80], [1, 0]),  # the larger need goes first
        ([SEVEN, TILED], [24, 80], [0, 1]),  # and to the card with the most room
        ([SEVEN, TILED], [21, 80], [0, 1]),
        ([SEVEN, TILED, SMALL], [24, 80], [0, 1, 1]),
        ([SEVEN, SEVEN, TILED], [80, 80], [1, 0, 0]),  # never two of a model on one card
        ([SEVEN] * 3 + [TILED], [80] * 8, [1, 2, 3, 0]),
        ([SMALL, SEVEN, TILED], [42, 10], [1, 0, 0]),  # spread, the small one would take the place of a large one
        ([SEVEN], [19], None),
        ([SEVEN, TILED], [24, 21], [1, 0]),
        ([SEVEN, TILED], [41], None),
        ([SEVEN, SEVEN], [80], None),
        ([SEVEN, TILED, SMALL], [24, 24], None),
    ],
)
def test_each_worker_gets_a_card_or_none_does(needs, rooms, cards):
    assert put_on_cards(needs, rooms) == cards


def test_no_card_ever_holds_more_than_it_has_nor_a_model_twice():
    for needs in product((SEVEN, TILED, SMALL), repeat=4):
        for rooms in ([24] * 4, [40, 40], [80], [24, 40, 80], [30] * 3):
            cards = put_on_cards(needs, rooms)
            for number, room in enumerate(rooms if cards else []):
                here = [need for need, card in zip(needs, cards, strict=True) if card == number]
                assert sum(need.mib for need in here) <= room
                assert len({need.model for need in here}) == len(here)


def test_what_is_left_is_divided_by_the_size_of_a_session():
    assert shares_mib([SEVEN, TILED], 62) == [20 + 4, 22 + 16]
    assert shares_mib([SEVEN, TILED], 42) == [20, 22]
    for room in range(42, 200):
        shares = shares_mib([SEVEN, TILED], room)
        assert room - 1 <= sum(shares) <= room and shares[0] >= 20 and shares[1] >= 22


def test_the_largest_sets_that_fit_are_named():
    assert would_fit([SEVEN, TILED, SMALL], [24]) == [("vl-7b",), ("4khd-7b",), ("vl-1_8b",)]
    assert would_fit([SEVEN, TILED, SMALL], [30]) == [("vl-7b", "vl-1_8b"), ("4khd-7b", "vl-1_8b")]
    assert would_fit([SEVEN, TILED, SMALL], [80]) == [("vl-7b", "4khd-7b", "vl-1_8b")]
    assert would_fit([SEVEN, TILED, SMALL], [5]) == []
