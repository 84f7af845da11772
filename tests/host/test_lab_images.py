"""scripts/lab images: what is built, what is pushed where, which lines it prints, and what it refuses before a build."""

import re

import pytest
import yaml

from host.errors import Refusal
from host.lab.images import lines_of, place_of, remedy_of, stale_of
from tests.host.machine import FakeMachine

DIGESTS = {name: f"sha256:{number * 64}" for name, number in (("server", "1"), ("ui", "2"), ("gateway", "3"))}


@pytest.mark.parametrize(
    ("registry", "host", "prefix"),
    [
        ("registry.lab:5000", "registry.lab:5000", "registry.lab:5000/lingbi/"),
        ("10.0.0.9:5000/vision/models/", "10.0.0.9:5000", "10.0.0.9:5000/vision/models/"),
        ("localhost/x", "localhost", "localhost/x/"),
    ],
)
def test_a_registry_is_a_host_and_a_prefix(registry, host, prefix):
    assert place_of(registry) == (host, prefix)


@pytest.mark.parametrize("registry", ["http://registry.lab:5000", "lab", "registry.lab:5000/Upper", "", "a.b/x y"])
def test_what_is_no_registry_is_refused(registry):
    with pytest.raises(Refusal, match=re.escape(f"--registry {registry}: give HOST")):
        place_of(registry)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (
            "Get https://lab:5000/v2/: http: server gave HTTP response to HTTPS client",
            '{"insecure-registries": ["lab:5000"]}',
        ),
        ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/lab:5000/ca.crt"),
        ("unauthorized: authentication required", "docker login lab:5000"),
        ("dial tcp 10.0.0.9:5000: connect: connection refused", "check its address"),
        ("manifest for lab:5000/lingbi/server:is-it-reached not found: manifest unknown", ""),
    ],
)
def test_what_docker_says_of_a_registry_has_a_remedy(said, word):
    assert word in remedy_of(said, "lab:5000") and bool(remedy_of(said, "lab:5000")) == bool(word)


def test_images_of_another_commit_are_stale_as_far_as_it_is_told():
    built = {"a": "1", "b": "2", "c": "unknown", "d": ""}
    assert stale_of(built, "1") == ["b"] and stale_of(built, "") == []


def test_the_lines_are_an_inventorys():
    text = lines_of("1.10", "lab:5000/lingbi/", DIGESTS, "lab:5000")
    assert yaml.safe_load(text) == {
        "lingbi_version": "1.10",
        "lingbi_image_prefix": "lab:5000/lingbi/",
        "lingbi_image_digests": {"1.10": DIGESTS},
        "lingbi_docker_daemon": {"insecure-registries": ["lab:5000"]},
    }
    assert "daemon" not in lines_of("1.10", "lab:5000/lingbi/", DIGESTS, None)


# An engine that has what was built or is in the file `here`, and a registry that takes everything.
ENGINE = """#!/bin/sh
folder={folder}
echo "$*" >>"$folder/calls"
case "$*" in
    "info --format {{{{json .RegistryConfig.IndexConfigs}}}}") echo '{{"lab:5000": {{"Secure": false}}}}' ;;
    info*) echo '{{"ServerVersion": "26.1.5"}}' ;;
    *"compose version"*) echo 2.30.1 ;;
    pull*) {pull} ;;
    "image inspect "*) grep -qx "$3" "$folder/here" ;;
    "inspect --format {{{{json .RepoDigests}}}} "*) echo "[\\"other/x@sha256:9\\", \\"${{4%:*}}@sha256:of-${{4##*/}}\\"]" ;;
    "inspect "*) grep -qx "$4" "$folder/here" && echo {revision} ;;
    build*) echo "$5" >>"$folder/here" ;;
    push*) echo "the layers' progress"; {push} ;;
esac
"""


@pytest.fixture
def engine(machine: FakeMachine):
    """Has an engine on the machine. pull, push: shell code of what the registry answers; revision: of images."""

    def have(pull="echo manifest unknown >&2; exit 1", push="true", revision="unknown", here=()):
        machine.have("grep", '#!/bin/sh\nexec /bin/grep "$@"\n')
        (machine.folder / "here").write_text("".join(f"{tag}\n" for tag in here))
        text = ENGINE.format(folder=machine.folder, pull=pull, push=push, revision=revision)
        machine.have("docker", text)

    return have


def test_what_is_missing_is_built_and_all_is_pushed(machine, root, engine):
    engine(here=["lingbi/ui:0.9.0"])
    done = machine.run(root, "host.lab.images", "--registry", "lab:5000", "--version", "0.9.0")
    assert done.returncode == 0, done.stderr
    built = [call.split("--tag ")[1].split()[0] for call in machine.calls() if call.startswith("build")]
    assert built == ["lingbi/server:0.9.0", "lingbi/gateway:0.9.0"]
    pushed = [call for call in machine.calls() if call.startswith(("tag", "push"))]
    assert pushed[:2] == ["tag lingbi/server:0.9.0 lab:5000/lingbi/server:0.9.0", "push lab:5000/lingbi/server:0.9.0"]
    assert len(pushed) == 6
    printed = yaml.safe_load(done.stdout)  # progress is not among it
    assert printed["lingbi_image_digests"] == {
        "0.9.0": {name: f"sha256:of-{name}:0.9.0" for name in ("server", "ui", "gateway")}
    }
    assert printed["lingbi_docker_daemon"] == {"insecure-registries": ["lab:5000"]}


def test_a_registry_that_docker_cannot_use_is_refused_before_a_build(machine, root, engine):
    engine(pull="echo 'http: server gave HTTP response to HTTPS client' >&2; exit 1")
    done = machine.run(root, "host.lab.images", "--registry", "lab:5000")
    assert done.returncode == 2 and "the registry lab:5000 cannot be used from here" in done.stderr
    assert "insecure-registries" in done.stderr and not [call for call in machine.calls() if "build" in call]


def test_a_push_that_fails_is_told_with_the_image_and_what_to_do(machine, root, engine):
    tags = [f"lingbi/{name}:0.9.0" for name in DIGESTS]
    engine(push="echo 'unauthorized: no' >&2; exit 1", here=tags)
    done = machine.run(root, "host.lab.images", "--registry", "lab:5000", "--version", "0.9.0")
    assert (done.returncode, done.stdout) == (3, "") and "docker login lab:5000" in done.stderr
    assert "lab:5000/lingbi/server:0.9.0 could not be pushed: unauthorized: no" in done.stderr


def test_images_of_another_commit_are_pushed_only_as_they_are(machine, root, engine):
    tags = [f"lingbi/{name}:0.9.0" for name in DIGESTS]
    engine(revision="another", here=tags)
    machine.have("git", "#!/bin/sh\necho this-commit\n")
    asked = ("host.lab.images", "--registry", "lab:5000", "--version", "0.9.0")
    done = machine.run(root, *asked)
    assert done.returncode == 2 and "built from another commit than this checkout's this-commit" in done.stderr
    assert "docker image rm lingbi/server:0.9.0" in done.stderr and not [c for c in machine.calls() if "push" in c]
    assert machine.run(root, *asked, "--as-is").returncode == 0
