"""Folders whose code behaves as the published one does, on TurboMind: smoked, and verified against their own code."""

import httpx
import pytest

from tests.conftest import lingbi, running_server
from tests.stand_ins import as_published_4khd, as_published_vl

SMALL_CACHE = {"LINGBI_CACHE_FRACTION": "0.05"}
RAW = ("Set max length", "Position interpolate", "TypedStorage", "to instantiate a model of type")

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[as_published_vl, as_published_4khd], ids=lambda make: make.__name__)
def folder(request, tmp_path):
    return request.param(tmp_path / "model")


@pytest.mark.parametrize("form", ["lmdeploy", "published"])
def test_smoke_passes_and_the_log_has_nothing_that_the_folders_code_prints(folder, form, tmp_path):
    settings = SMALL_CACHE | {"LINGBI_PROMPT_FORM": form}
    with running_server(tmp_path / "state", "--model", folder, "--engine", "turbomind", **settings) as report:
        smoke = lingbi("smoke", state_dir=tmp_path / "state")
        told = httpx.get(report["url"] + "/ready", trust_env=False).json()["prompt"]
    assert smoke.returncode == 0, smoke.stderr
    assert told["form"] == form
    log = (tmp_path / "state/logs/worker-0.log").read_text()
    assert [said for said in RAW if said in log] == [] and "ready: " in log


def test_verify_model_proves_it(folder, tmp_path):
    done = lingbi(
        "verify-model", folder, "--engine", "turbomind", state_dir=tmp_path / "state", timeout_s=300, **SMALL_CACHE
    )
    assert done.returncode == 0 and "FAIL" not in done.stdout, done.stdout + done.stderr
    assert "图中有一个红色的圆形" in done.stdout and "greedy tokens are those of the folder's own code" in done.stdout
