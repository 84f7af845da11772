"""The four published geometries on the CPU engine: every tensor in its published shape, the language model of one layer."""

import pytest

from lingbi import catalogue
from tests.geometries import PUBLISHED, expect_fetched_loaded_and_right


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_geometry_is_fetched_loaded_and_answers_on_a_cpu(tmp_path, model):
    """With all layers three of them need 18 GB of memory and more: tests/gpu has them so."""
    expect_fetched_loaded_and_right(model, "cpu", tmp_path / "lab", layers=1)
