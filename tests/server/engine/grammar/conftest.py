"""The vocabularies of the demo model and of the published ones."""

import shutil

import pytest
from lmdeploy.tokenizer import Tokenizer

from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO
from tests.geometries import PUBLISHED


@pytest.fixture(scope="session", params=["demo", "published"])
def both_vocabularies(request, tmp_path_factory):
    """The one, and then the other."""
    folder = DEMO
    if request.param == "published":
        if not PUBLISHED.exists():
            pytest.skip("the published tokenizer is not beside this repository")
        folder = tmp_path_factory.mktemp("published")
        for file in (*DEMO.glob("*.json"), *DEMO.glob("*.py"), PUBLISHED / "tokenizer.model"):
            shutil.copyfile(file, folder / file.name)
    tokenizer = Tokenizer(str(folder))
    return Vocabulary(tokenizer, [tokenizer.vocab_size - 2])  # [UNUSED_TOKEN_145]
