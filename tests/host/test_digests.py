"""Images of others get the digest that a registry tells, and none where it tells none."""

from host.digests import files, names, pinned
from tests.conftest import ROOT

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
