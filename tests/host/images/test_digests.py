"""Images of others get the digest that a registry tells, and none where it tells none."""

import subprocess
import sys

import pytest

from host.errors import Refusal
from host.images.digests import at, differences, digest_in, files, mirrors_of, names, pinned
from tests.conftest import ROOT
from tests.containers.images import docker
from tests.host.machine import FakeMachine

DIGEST, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DOCKERFILE = f"""\
# No digest yet: scripts/digests looks it up where the registry can be reached, and pins it.
FROM ${{BASE_REGISTRY}}nginx:1.30.5-trixie AS base
FROM python:3.10@{OLD}
FROM base
"""
COMPOSE = """\
    image: ${PREFIX?x}server:${VERSION:?x}
    # No digest yet: scripts/digests looks it up where the registry can be reached, and pins it.
    image: ${LINGBI_BASE_REGISTRY:-}prom/prometheus:v2.55.1
"""


def test_tags_are_pinned_and_old_digests_replaced():
    digests = dict.fromkeys(names(DOCKERFILE), DIGEST)
    assert pinned(DOCKERFILE, digests) == (
        f"FROM ${{BASE_REGISTRY}}nginx:1.30.5-trixie@{DIGEST} AS base\nFROM python:3.10@{DIGEST}\nFROM base\n"
    )
    again = pinned(DOCKERFILE, digests)
    assert pinned(again, digests) == again


def test_our_own_images_are_left_alone():
    assert names(COMPOSE) == ["prom/prometheus:v2.55.1"]
    assert pinned(COMPOSE, {"prom/prometheus:v2.55.1": DIGEST}).splitlines() == [
        "    image: ${PREFIX?x}server:${VERSION:?x}",
        f"    image: ${{LINGBI_BASE_REGISTRY:-}}prom/prometheus:v2.55.1@{DIGEST}",
    ]


def test_every_image_of_others_in_this_repository_is_found():
    found = {name for file in files(ROOT) for name in names(file.read_text())}
    assert {name.rsplit("/", 1)[-1].split(":")[0] for name in found} == {
        "cuda", "python", "nginx", "prometheus", "grafana", "nginx-prometheus-exporter", "dcgm-exporter", "postgres",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("nginx:1.30", "mirror.lab:5000/library/nginx:1.30"),
        ("prom/prometheus:v2", "mirror.lab:5000/prom/prometheus:v2"),
        ("nvcr.io/nvidia/dcgm:3", "mirror.lab:5000/nvcr/nvidia/dcgm:3"),
        ("quay.io/other:1", "quay.io/other:1"),
    ],
)
def test_a_tag_is_looked_up_in_the_mirror_of_its_registry(name, place):
    assert at(name, mirrors_of(["mirror.lab:5000/", "nvcr.io=mirror.lab:5000/nvcr"])) == place
    assert at(name, {}) == name


def test_an_images_digest_is_that_for_all_platforms():
    platforms = f'"manifests": [{{"digest": "{OLD}"}}]'
    assert digest_in(f'{{{platforms}, "digest": "{DIGEST}"}}') == DIGEST
    for text in (f"{{{platforms}}}", '{"digest": "sha256:1"}', "Digest: x", "[]", "{}", '{"digest": null}'):
        assert digest_in(text) == ""


def test_a_mirror_that_is_none_is_refused():
    with pytest.raises(Refusal, match="without https://"):
        mirrors_of(["https://mirror.lab"])


def test_what_differs_is_told_with_both_digests():
    assert differences(DOCKERFILE, {"nginx:1.30.5-trixie": DIGEST, "python:3.10": DIGEST}) == [
        f"nginx:1.30.5-trixie: no digest -> {DIGEST}",
        f"python:3.10: {OLD} -> {DIGEST}",
    ]
    assert differences(f"FROM python:3.10@{DIGEST}\n", {"python:3.10": DIGEST}) == []


REGISTRY = """#!/bin/sh
case "$*" in
    "buildx imagetools inspect --format {{json .Manifest}} "*nginx*) %s ;;
    "buildx imagetools inspect --format {{json .Manifest}} "*) echo '{"digest": "%s"}' ;;
    *) exit 9 ;;
esac
"""


def texts(root) -> dict:
    return {file: file.read_text() for file in files(root)}


def test_a_registrys_digests_are_written_once_and_checked(machine: FakeMachine, root):
    machine.have("docker", REGISTRY % (f"""echo '{{"digest": "{OLD}"}}'""", DIGEST))
    before = texts(root)
    done = machine.run(root, "host.images.digests", "--check")
    assert done.returncode == 1 and done.stdout.count("would change: ") == 4 and texts(root) == before, done.stderr
    done = machine.run(root, "host.images.digests")
    assert done.returncode == 0 and "changed: docker/gateway/Dockerfile" in done.stdout, done.stderr
    written = "".join(texts(root).values())
    assert f"FROM ${{BASE_REGISTRY}}library/nginx:1.30.5-trixie@{OLD} AS published" in written
    assert f"image: ${{LINGBI_BASE_REGISTRY:-}}prom/prometheus:v2.55.1@{DIGEST}" in written
    assert "No digest yet" not in written
    done = machine.run(root, "host.images.digests", "--check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("answer", ["echo no such host >&2; exit 1", "echo nonsense", "echo"])
def test_a_registry_that_tells_no_digest_changes_nothing(machine: FakeMachine, root, answer):
    machine.have("docker", REGISTRY % (answer, DIGEST))
    before = texts(root)
    done = machine.run(root, "host.images.digests")
    assert done.returncode == 2 and texts(root) == before and len(done.stderr.splitlines()) == 1, done.stderr
    assert "the digest of nginx:1.30.5-trixie could not be looked up" in done.stderr


@pytest.fixture
def bases(registry, root, tmp_path):
    """Images under all names that this repository refers to, in a real registry; {name there: digest as it was pushed}."""
    mirrors, context = mirrors_of([registry, f"nvcr.io={registry}/nvcr"]), tmp_path / "context"
    places = sorted({at(name, mirrors) for text in texts(root).values() for name in names(text)})
    context.mkdir()
    pushed = {}
    try:
        pushed |= {place: push(context, place, "first") for place in places}
        yield pushed
    finally:
        first = [f"{place.rpartition(':')[0]}@{digest}" for place, digest in pushed.items()]
        docker("rmi", "--force", *places, *first, check=False)


def push(context, place: str, text: str) -> str:
    """Build and push an image; its digest in the registry, as the push gave it."""
    (context / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /{text}\nLABEL place={place}\n")
    docker("build", "--quiet", f"--tag={place}", context)
    docker("push", "--quiet", place)
    [digest] = docker("image", "inspect", '--format={{join .RepoDigests " "}}', place).stdout.split()
    return digest.partition("@")[2]


def test_a_real_registry_fills_and_checks_the_lock(bases, registry, root, tmp_path):
    """Every image has a digest of its own, and one whose tag moves is told and changed, and no other."""

    def digests(*more):
        options = (f"--registry={registry}", f"--registry=nvcr.io={registry}/nvcr", *more)
        command = [sys.executable, "-m", "host.images.digests", *options]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    assert digests("--check").returncode == 1
    filled = digests()
    assert filled.returncode == 0, filled.stderr
    written = "".join(texts(root).values())
    assert len(set(bases.values())) == len(bases) and all(f"@{digest}" in written for digest in bases.values())
    assert (digests("--check").returncode, digests("--check").stdout) == (0, "")
    [place] = [place for place in bases if "/library/nginx:" in place]
    moved = push(tmp_path / "context", place, "second")
    told = digests("--check")
    assert told.returncode == 1 and "would change: docker/gateway/Dockerfile" in told.stdout
    assert told.stdout.splitlines()[1:] == [f"  {place.partition('/library/')[2]}: {bases[place]} -> {moved}"]
    assert digests().returncode == 0 and digests("--check").returncode == 0


def test_a_registry_that_lacks_an_image_changes_nothing(registry, root):
    before = texts(root)
    command = [sys.executable, "-m", "host.images.digests", f"--registry={registry}/empty"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and f"the digest of {registry}/empty/" in done.stderr and texts(root) == before
