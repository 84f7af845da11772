"""Stop words are found wherever the pieces of an answer are cut."""

import pytest

from lingbi.engine.stop_words import StopWords


def fed(words, *pieces) -> tuple:
    stop = StopWords(words)
    shown = [stop.feed(piece, place == len(pieces)) for place, piece in enumerate(pieces, 1)]
    return [text for text, _ in shown], shown[-1][1]


@pytest.mark.parametrize(
    ("words", "pieces", "shown", "stopped"),
    [
        ([], ["ab", "c"], ["ab", "c"], False),
        (["END"], ["abE", "N", "D more"], ["ab", "", ""], True),
        (["END"], ["abE", "NO"], ["ab", "ENO"], False),
        (["END"], ["abEN"], ["abEN"], False),
        (["b", "ab"], ["xab"], ["x"], True),
        (["aab"], ["aa", "ab"], ["", "a"], True),
        ([""], ["x"], ["x"], False),
    ],
)
def test_stop_words_are_found_across_pieces(words, pieces, shown, stopped):
    assert fed(words, *pieces) == (shown, stopped)
