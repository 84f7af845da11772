"""The vision tower that a sleeping model keeps in host memory."""

import shutil

import pytest

from lingbi.model.folder import inspect
from lingbi.vision.tower_ahead import TowerAhead
from tests.conftest import DEMO


@pytest.fixture
def ahead(tmp_path):
    """(a TowerAhead that has made the tower of a copy of the demo model, the copy's folder)."""
    folder = inspect(shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__")))
    found = TowerAhead(tmp_path / "links")
    assert found.take(folder) is None
    found.make(folder)
    return found, folder


def test_it_is_what_a_wake_would_load_and_is_handed_over_once(ahead):
    found, folder = ahead
    from lingbi.vision.tower_loading import load_tower

    tower = found.take(folder)
    assert tower is not None and found.take(folder) is None
    ours, theirs = tower.state_dict(), load_tower(str(folder.link_in(found.links_dir))).state_dict()
    assert ours.keys() == theirs.keys() and all(values.equal(theirs[name]) for name, values in ours.items())


def test_one_of_a_folder_that_has_changed_is_not_used(ahead):
    found, folder = ahead
    folder.shards[0].touch()
    assert found.take(folder) is None
