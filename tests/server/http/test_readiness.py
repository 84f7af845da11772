"""/ready tells how far a start is, also within its longest phase, and what the engine takes of a GPU."""

from dataclasses import asdict, fields

import pytest
import torch

from lingbi.engine.progress import PromptProgress
from lingbi.engine.turbomind.uploads import Uploads
from lingbi.http.describing.document import describe
from lingbi.http.protocol.status import Prompts, Ready
from lingbi.http.readiness import LOADING, LOADING_MODEL, PREPARING, PROBING, PROGRESS, READY, STARTING, Readiness
from lingbi.model import catalogue
from lingbi.model.host_memory import fit_on_cpu
from lingbi.model.sizing import Fit, fit
from lingbi.settings import Settings

PHASES = (STARTING, PREPARING, LOADING, LOADING_MODEL, PROBING, READY)


@pytest.fixture
def readiness(service) -> Readiness:
    return service.readiness


def test_progress_moves_from_phase_to_phase_and_while_weights_are_loaded(client, readiness):
    shown = []
    for phase in PHASES:
        readiness.enter(phase)
        for done in range(0, 101, 20) if phase == LOADING_MODEL else (0,):
            if done:
                readiness.weights_loaded(done << 30, 100 << 30)
            report = client.get("/ready").json()
            assert report["phase"] == phase
            shown.append((phase, report["progress"]))
    progress = [value for _, value in shown]
    assert progress == sorted(progress) and (progress[0], progress[-1]) == (0, 1)
    loading_model = [value for phase, value in shown if phase == LOADING_MODEL]
    assert len(set(loading_model)) == len(loading_model) == 6
    before, after = dict(shown)[LOADING], dict(shown)[PROBING]
    assert before < loading_model[0] and loading_model[-1] == after < 1


def test_what_was_loaded_counts_in_its_phase_only(readiness):
    readiness.weights_loaded(1, 2)
    for phase in PROGRESS.keys() - {LOADING_MODEL}:
        readiness.enter(phase)
        assert readiness.progress() == PROGRESS[phase]


def test_the_loader_tells_its_bytes_to_ready(readiness):
    """As a worker joins them: of every tensor of the language model, as it goes to the GPU."""
    readiness.enter(LOADING_MODEL)
    layers = {f"model.layers.{number}.weight": torch.zeros(1 + number) for number in range(4)}
    uploads = Uploads({"vit.weight": torch.zeros(1000)} | layers, readiness.weights_loaded, copy=lambda tensor: tensor)
    shown = [readiness.progress()]
    for name in layers:
        assert uploads[name] is layers[name]
        shown.append(readiness.progress())
    uploads.clear()
    assert readiness.phase == LOADING_MODEL and readiness.loaded == 1
    assert shown == sorted(set(shown)) and shown[-1] == pytest.approx(PROGRESS[PROBING])


def test_ready_tells_what_the_engine_takes_of_a_gpu_as_the_document_says(client, readiness):
    assert "gpu" not in client.get("/ready").json()
    readiness.fit = fit(catalogue.find("vl-7b"), 140_000)
    told = client.get("/ready").json()["gpu"]
    assert told == asdict(readiness.fit) | {"total_mib": readiness.fit.total_mib}
    schemas = describe("model")["components"]["schemas"]
    assert {"$ref": "#/components/schemas/OnGpu"} in schemas["Ready"]["properties"]["gpu"]["anyOf"]
    described = schemas["OnGpu"]
    assert described["properties"].keys() == {field.name for field in fields(Fit)} | {"total_mib"}
    assert set(described["required"]) == described["properties"].keys() and "MiB" in described["description"]
    kinds = {"integer": int, "string": str}
    assert all(type(told[name]) is kinds[schema["type"]] for name, schema in described["properties"].items())


def test_a_cpu_tells_what_its_engine_takes_and_how_far_the_probe_is(client, readiness):
    readiness.fit = fit_on_cpu(catalogue.find("vl-1_8b"), 24_000, Settings())
    told = client.get("/ready").json()
    assert told["cpu"] == asdict(readiness.fit) | {"total_mib": readiness.fit.total_mib} and "gpu" not in told
    readiness.enter(PROBING)
    begun = readiness.progress()
    readiness.probe_computed(PromptProgress(256, 1372))
    assert begun == PROGRESS[PROBING] < readiness.progress() < 1


def test_ready_tells_what_an_image_costs(client, readiness):
    assert "image_tokens" not in client.get("/ready").json()
    for name, hd_num, told in (("vl-7b", 55, [1225, 1225]), ("4khd-7b", 25, [1897, 4057])):
        readiness.image_tokens = catalogue.image_token_range(catalogue.find(name).image_side, hd_num)
        assert client.get("/ready").json()["image_tokens"] == told == Ready(**client.get("/ready").json()).image_tokens


def test_ready_tells_how_prompts_are_made_as_the_document_says(client, readiness):
    assert "prompt" not in client.get("/ready").json()
    for told in (
        {"form": "published", "template_tokens": 144},
        {"form": "lmdeploy", "template_tokens": 143, "hd_num": 55},
    ):
        readiness.prompt = told
        assert client.get("/ready").json()["prompt"] == told
        assert Prompts(**told).model_dump(exclude_none=True) == told
    schemas = describe("model")["components"]["schemas"]
    assert {"$ref": "#/components/schemas/Prompts"} in schemas["Ready"]["properties"]["prompt"]["anyOf"]
