"""Engines in this process that bound answers are tested on."""

import pytest

from tests.conftest import DEMO
from tests.geometries import PUBLISHED
from tests.server.engine.masked import cpu_engine, random_demo


@pytest.fixture(scope="module")
def demo_engine():
    return cpu_engine(DEMO)


@pytest.fixture
def demo(demo_engine):
    """The demo model, without sessions of the test before."""
    demo_engine.sessions.clear()
    return demo_engine


@pytest.fixture(scope="module")
def randomly(tmp_path_factory):
    return cpu_engine(random_demo(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights with the published tokenizer, of whose tokens the candidates are a ninetieth."""
    if not PUBLISHED.exists():
        pytest.skip("the published tokenizer is not beside this repository")
    return cpu_engine(random_demo(tmp_path_factory.mktemp("published"), PUBLISHED / "tokenizer.model"))
