"""A copy of the repository and a machine of fake programs."""

import pytest

from tests.compose.conftest import copy_repository
from tests.host.machine import FakeMachine


@pytest.fixture
def root(tmp_path):
    return copy_repository(tmp_path / "copy")


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    return FakeMachine(folder)
