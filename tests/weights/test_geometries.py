"""A published geometry on the CPU engine. `python -m tests.geometries` does the same with all four, in 7 minutes."""

import pytest

from lingbi.model import catalogue
from tests.geometries import PUBLISHED, expect_fetched_loaded_and_right


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
def test_a_geometry_is_fetched_loaded_and_answers_on_a_cpu(tmp_path):
    model = next(model for model in catalogue.MODELS if model.name == "vl-1_8b")
    expect_fetched_loaded_and_right(model, "cpu", tmp_path / "lab", layers=1)
