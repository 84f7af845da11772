"""On a GPU `auto` is the best published model that fits it: fetched from the hub at full size, checked, loaded, asked."""

import pytest

from lingbi.model import catalogue
from tests.geometries import PUBLISHED, expect_fetched_loaded_and_right

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]
WHOLE_CARD_MIB, SMALL_CARD_MIB = 24 << 10, 8 << 10


@pytest.mark.parametrize(("name", "allowed_mib"), [("vl-7b", WHOLE_CARD_MIB), ("vl-1_8b", SMALL_CARD_MIB)])
def test_auto_fetches_and_serves_the_best_that_fits(tmp_path, name, allowed_mib):
    """Needs 35 GB of disk."""
    limit = {"LINGBI_GPU_MEMORY_MIB": str(allowed_mib)}
    expect_fetched_loaded_and_right(catalogue.find(name), "auto", tmp_path / "lab", asked="auto", **limit)
