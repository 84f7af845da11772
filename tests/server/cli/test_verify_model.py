"""scripts/verify-model proves a folder, and says what is wrong with one that is not right."""

import re

import pytest

from lingbi.cli.verify_model import NEAR_TIE, judged
from tests.conftest import lingbi
from tests.stand_ins import as_published_vl, of_another_model


def test_a_folder_with_the_published_conventions_is_proven(tmp_path):
    folder = as_published_vl(tmp_path / "published")
    done = lingbi("verify-model", folder, "--engine", "cpu", state_dir=tmp_path / "state")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", name] for name in ("recognised", "code", "machine", "memory", "image", "conventions", "tokens")
    ], "and nothing that the folder's code prints"
    report = dict(line.split(maxsplit=2)[1:] for line in lines[:-1])
    assert "internlm-xcomposer2-demo: template internlm-xcomposer2" in report["recognised"]
    assert "modeling_internlm2.py " in report["code"] and "lmdeploy 0.4.1" in report["machine"]
    assert "图中有一个红色的圆形" in report["image"] and "rotates by cache length" in report["conventions"]
    assert report["tokens"].split()[0] == report["tokens"].split()[2] != "0"
    assert lines[-1] == "ok: internlm-xcomposer2-demo on cpu"


def test_a_folder_that_computes_something_else_is_refused(tmp_path):
    folder = of_another_model(tmp_path / "other")
    done = lingbi("verify-model", folder, "--engine", "cpu", state_dir=tmp_path / "state")
    assert done.returncode == 3 and f"FAIL  error        the code in {folder} computes another model" in done.stdout


def test_a_folder_without_its_tokenizers_code_is_refused_before_anything_is_loaded(tmp_path):
    folder = as_published_vl(tmp_path / "cut")
    (folder / "tokenization_internlm_xcomposer2.py").unlink()
    done = lingbi("verify-model", folder, state_dir=tmp_path / "state")
    assert done.returncode == 2 and f"{folder} lacks tokenization_internlm_xcomposer2.py" in done.stdout


@pytest.mark.parametrize(
    ("found", "gaps", "state", "said"),
    [
        ([1, 2, 3], [0, 0, 0], "ok", "3 of 3 greedy tokens are those"),
        ([1, 9, 3], [0, NEAR_TIE, 5], "ok", "1 of 3 .* at token 2 .* as close as 16 bits can tell"),
        ([1, 9, 3], [0, NEAR_TIE + 1, 5], "FAIL", "1 of 3 .* at token 2 the engine's choice is 1.250 below"),
        ([], [], "FAIL", "0 of 0"),
    ],
)
def test_tokens_are_judged_at_their_first_difference(found, gaps, state, said):
    line = judged([1, 2, 3], found, gaps)
    assert line.state == state
    assert re.search(said, line.text)
