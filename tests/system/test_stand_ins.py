"""Folders whose code behaves as the published one does: started, smoked, talked with and described, as users do it."""

import json

import pytest

from lingbi.images.messages import data_url, user_message
from lingbi.images.scenes import Scene, Thing, draw
from tests.client import CHAT, QUESTION, body, http
from tests.conftest import lingbi, running_server
from tests.stand_ins import as_published_4khd, as_published_vl

CHUNKS_AND_SESSIONS = {  # a chunk that cuts every prompt, one that cuts none; sessions kept or not
    "vl": (as_published_vl, "32", "4"),
    "vl, whole prompts from nothing": (as_published_vl, "16384", "0"),
    "4khd": (as_published_4khd, "256", "4"),
}
STAR = Scene((Thing("blue", "star"),))


@pytest.fixture(scope="module", params=CHUNKS_AND_SESSIONS)
def stand_in(request, tmp_path_factory):
    """A running server over a stand-in; yields its report with "state_dir" and "folder"."""
    make, prefill_tokens, kept = CHUNKS_AND_SESSIONS[request.param]
    place = tmp_path_factory.mktemp("stand-in")
    folder = make(place / "model")
    settings = {"LINGBI_CPU_PREFILL_TOKENS": prefill_tokens, "LINGBI_CPU_KEPT_SESSIONS": kept}
    arguments = ("--model", folder, "--engine", "cpu")
    with running_server(place / "state", *arguments, **settings) as report:
        yield report | {"state_dir": place / "state", "folder": folder}


def test_smoke_passes(stand_in):
    smoke = lingbi("smoke", state_dir=stand_in["state_dir"])
    assert smoke.returncode == 0, smoke.stderr


def test_three_turns_about_an_image_are_right(stand_in):
    messages = []
    with http(stand_in) as client:
        for question, expected in (("What colour is it?", "blue"), ("What shape is it?", "star"), (QUESTION, "蓝色")):
            messages.append(user_message(question, *([] if messages else [data_url(draw(STAR))])))
            response = client.post(CHAT, json=body(stand_in, messages))
            answer = response.json()["choices"][0]["message"]["content"]
            assert expected in answer
            messages.append({"role": "assistant", "content": answer})


def test_nothing_of_the_folders_code_is_raw_text_in_the_log(stand_in):
    log = (stand_in["state_dir"] / "logs" / "worker-0.log").read_text().splitlines()
    assert [line for line in log if not line.startswith("{")] == []
    said = [json.loads(line)["message"] for line in log]
    assert any("agrees with the folder's own code: cosine 1.0000" in line for line in said)


def test_the_pipeline_describes_with_it(stand_in, tmp_path):
    file = tmp_path / "star.png"
    draw(STAR).save(file)
    done = lingbi("pipeline", file, "--model", stand_in["folder"], "--engine", "cpu", state_dir=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert "蓝色" in json.loads(done.stdout)["text"]
