"""Mirrors are judged before anything is built, and builds get those that their Dockerfile knows."""

import pytest

from host.errors import Refusal
from host.images.mirrors import build_options, check
from tests.conftest import ROOT

VALUES = {
    "LINGBI_INDEX_URL": "https://mirror.example/pypi/simple",
    "LINGBI_APT_MIRROR": "http://mirror.example",
    "LINGBI_BASE_REGISTRY": "mirror.example:5000/hub/",
    "LINGBI_PYTHON_MIRROR": "https://mirror.example/python-build-standalone",
}


def dockerfile(name: str) -> str:
    return (ROOT / "docker" / name / "Dockerfile").read_text()


def test_usable_ones_are_accepted(tmp_path):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    check({})
    check(VALUES | {"LINGBI_CA_FILE": str(tmp_path / "ca.pem")})
    check(dict.fromkeys([*VALUES, "LINGBI_CA_FILE"], ""))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LINGBI_INDEX_URL", "mirror.example/simple", "give an address, as in http://mirror.example"),
        ("LINGBI_INDEX_URL", "https://me:word@mirror.example/simple", "give it in the shell: BUILD_INDEX_URL=…"),
        ("LINGBI_APT_MIRROR", "https://mirror.example", "begin it with http://"),
        ("LINGBI_APT_MIRROR", "http://me:word@mirror.example", "may hold no secrets; give a mirror that needs none"),
        ("LINGBI_BASE_REGISTRY", "https://mirror.example/", "give HOST/, as in mirror.example:5000/, without https://"),
        ("LINGBI_BASE_REGISTRY", "mirror.example", "give HOST/, as in mirror.example:5000/"),
        ("LINGBI_PYTHON_MIRROR", "/share/python", "give an address"),
        ("LINGBI_CA_FILE", "/nowhere.pem", "there is no certificate in PEM form"),
    ],
)
def test_others_are_refused_by_name(name, value, said):
    with pytest.raises(Refusal, match=name) as refused:
        check(VALUES | {name: value})
    assert said in str(refused.value) and ":word@" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("server", {"INDEX_URL", "APT_MIRROR", "BASE_REGISTRY"}),
        ("ui", {"INDEX_URL", "BASE_REGISTRY"}),
        ("gateway", {"APT_MIRROR", "BASE_REGISTRY"}),
    ],
)
def test_a_build_gets_what_its_dockerfile_knows(name, given):
    options = build_options(dockerfile(name), VALUES, {})
    assert options[::2] == ["--build-arg"] * len(given)
    assert dict(option.split("=", 1) for option in options[1::2]) == {key: VALUES[f"LINGBI_{key}"] for key in given}
    without = build_options(dockerfile(name), {}, {})  # as Compose gives them, so that both share what is built
    assert without[1::2] == [option.partition("=")[0] + "=" for option in options[1::2]]


def test_the_shell_goes_before_the_settings():
    shell = {"BUILD_INDEX_URL": "https://other.example/simple", "BUILD_CA_FILE": "/etc/other.pem"}
    options = build_options(dockerfile("ui"), VALUES | {"LINGBI_CA_FILE": "/etc/lab.pem"}, shell)
    assert "INDEX_URL=https://other.example/simple" in options
    assert options[-2:] == ["--secret", "id=ca,src=/etc/other.pem"]
    options = build_options(dockerfile("ui"), {"LINGBI_CA_FILE": "/etc/lab.pem"}, {})
    assert options[-2:] == ["--secret", "id=ca,src=/etc/lab.pem"]


def test_no_mirror_is_known_to_a_stage_that_an_image_is_made_of():
    """What an ancestor of the image knows stands in the image's history for good."""
    for name in ("server", "ui", "gateway"):
        stages = dockerfile(name).split("\nFROM ")
        parents = {words[2] if len(words := stage.split("\n")[0].split()) > 2 else "": stage for stage in stages[1:]}
        stage = stages[-1]
        while stage:
            assert not any(
                f"ARG {argument}" in stage for argument in ("INDEX_URL", "APT_MIRROR", "BASE_REGISTRY")
            ), name
            stage = parents.get(stage.split()[0], "")
