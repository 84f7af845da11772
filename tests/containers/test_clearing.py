"""What a run that was killed has left on the engine is removed before the next one looks, and nothing of others."""

import uuid

import pytest

from tests.containers import fixtures
from tests.containers.images import docker


@pytest.fixture
def names(docker_engine):
    """A name of something that was left, and one of something else; each has a volume and a network."""
    left, other = (f"lingbi-test-{kind}-{uuid.uuid4().hex[:8]}" for kind in ("left", "other"))
    for name in (left, other):
        docker("volume", "create", name)
        docker("network", "create", "--internal", name)
    yield left, other
    docker("volume", "rm", "--force", left, other)
    docker("network", "rm", left, other, check=False)


def test_what_was_left_goes_and_nothing_else(names, monkeypatch):
    left, other = names
    monkeypatch.setattr(fixtures, "OURS", left)
    assert fixtures.things() >= {left}
    fixtures.clear()
    found = {name for command in fixtures.LEFT for name in docker(*command).stdout.split()}
    assert left not in found and other in found
