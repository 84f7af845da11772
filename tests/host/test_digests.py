"""Images of others get the digest that a registry tells, and none where it tells none."""

import pytest

from host.digests import files, names, pinned
from tests.conftest import ROOT
from tests.host.machine import FakeMachine

DIGEST, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DOCKERFILE = f"""\
# No digest yet: scripts/digests looks it up where the registry can be reached, and pins it.
FROM nginx:1.28.0-bookworm AS base
FROM python:3.10@{OLD}
FROM base
"""
COMPOSE = """\
    image: ${PREFIX?x}server:${VERSION:?x}
    # No digest yet: scripts/digests looks it up where the registry can be reached, and pins it.
    image: prom/prometheus:v2.55.1
"""


def test_tags_are_pinned_and_old_digests_replaced():
    digests = dict.fromkeys(names(DOCKERFILE), DIGEST)
    assert pinned(DOCKERFILE, digests) == (
        f"FROM nginx:1.28.0-bookworm@{DIGEST} AS base\nFROM python:3.10@{DIGEST}\nFROM base\n"
    )
    again = pinned(DOCKERFILE, digests)
    assert pinned(again, digests) == again


def test_our_own_images_are_left_alone():
    assert names(COMPOSE) == ["prom/prometheus:v2.55.1"]
    assert pinned(COMPOSE, {"prom/prometheus:v2.55.1": DIGEST}).splitlines() == [
        "    image: ${PREFIX?x}server:${VERSION:?x}",
        f"    image: prom/prometheus:v2.55.1@{DIGEST}",
    ]


def test_every_image_of_others_in_this_repository_is_found():
    found = {name for file in files(ROOT) for name in names(file.read_text())}
    assert {name.rsplit("/", 1)[-1].split(":")[0] for name in found} == {
        "cuda", "python", "nginx", "prometheus", "grafana", "nginx-prometheus-exporter", "dcgm-exporter",
    }  # fmt: skip


REGISTRY = """#!/bin/sh
case "$*" in
    "buildx imagetools inspect --format {{.Manifest.Digest}} "*nginx*) %s ;;
    "buildx imagetools inspect --format {{.Manifest.Digest}} "*) echo %s ;;
    *) exit 9 ;;
esac
"""


def texts(root) -> dict:
    return {file: file.read_text() for file in files(root)}


def test_a_registrys_digests_are_written_once_and_checked(machine: FakeMachine, root):
    machine.have("docker", REGISTRY % (f"echo {OLD}", DIGEST))
    before = texts(root)
    done = machine.run(root, "host.digests", "--check")
    assert done.returncode == 1 and done.stdout.count("would change: ") == 4 and texts(root) == before, done.stderr
    done = machine.run(root, "host.digests")
    assert done.returncode == 0 and "changed: docker/gateway/Dockerfile" in done.stdout, done.stderr
    written = "".join(texts(root).values())
    assert (
        f"FROM nginx:1.28.0-bookworm@{OLD} AS base" in written and f"image: prom/prometheus:v2.55.1@{DIGEST}" in written
    )
    assert "No digest yet" not in written
    done = machine.run(root, "host.digests", "--check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("answer", ["echo no such host >&2; exit 1", "echo nonsense", "echo"])
def test_a_registry_that_tells_no_digest_changes_nothing(machine: FakeMachine, root, answer):
    machine.have("docker", REGISTRY % (answer, DIGEST))
    before = texts(root)
    done = machine.run(root, "host.digests")
    assert done.returncode == 2 and texts(root) == before and len(done.stderr.splitlines()) == 1, done.stderr
    assert "the digest of nginx:1.28.0-bookworm could not be looked up" in done.stderr
