"""What a worker tells the runner of batches about this installation."""

import json

import pytest

from lingbi.worker.batches import names_of


@pytest.fixture
def settings(settings, tmp_path):
    workers = [{"model": name, "source": name, "device": None, "memory_mib": None} for name in ("model", "other")]
    (tmp_path / "placement.json").write_text(json.dumps({"workers": workers}))
    return settings.model_copy(update={"placement_file": tmp_path / "placement.json"})


def test_the_models_beside_a_workers_own_and_their_aliases_are_known(service):
    names = names_of(service, {"LINGBI_GATEWAY_ALIASES": "gpt-4o=other, default=model"})
    assert names.ours == {"model", "other"} and names.aliases == {"gpt-4o": "other", "default": "model"}


def test_a_worker_alone_knows_its_own_model(service):
    service.settings = service.settings.model_copy(update={"placement_file": None})
    names = names_of(service, {"LINGBI_GATEWAY_ALIASES": ""})
    assert names.ours == {"model"} and names.aliases == {}
