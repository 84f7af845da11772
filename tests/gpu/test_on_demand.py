"""Two published geometries in turn on a card of which they may take so much: the bounds of `tests.load.swap_times`.

Random weights, 35 GB of disk for two 7B models; about six minutes. Prints tables: run it with -s.
"""

import pytest

from tests.geometries import PUBLISHED
from tests.load.swap_times import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


@pytest.mark.parametrize(("names", "card_mib"), [(("vl-7b", "4khd-7b"), 24 << 10), (("vl-1_8b", "vl-7b"), 24 << 10)])
def test_two_models_take_turns_on_a_card_and_leave_no_memory_behind(names, card_mib):
    assert main(["--models", *names, "--card-mib", str(card_mib)]) == 0
