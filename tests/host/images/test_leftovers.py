"""What older versions and builds leave on an engine: which of it is ours, which is old, and what stays."""

from datetime import datetime, timedelta, timezone

import pytest

from host.images import leftovers
from tests.containers.images import docker

PREFIX = "lingbi-test-old/"
NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


def image(name: str, tag: str, day: int) -> dict:
    return {
        "Repository": name,
        "Tag": tag,
        "CreatedAt": f"2026-04-{day:02} 10:00:00 +0800 CST",
        "ID": f"sha256:{tag}{day}",
    }


def test_the_version_and_the_one_before_stay_and_what_has_no_name_goes():
    found = [image("lingbi/server", version, day) for version, day in (("0.3.0", 9), ("0.1.0", 1), ("0.2.0", 5))]
    found += [image("lingbi/ui", "0.3.0", 9), image("lingbi/ui", "0.2.0", 5), image("<none>", "<none>", 8)]
    assert [leftovers.name_of(fact) for fact in leftovers.old(found, "0.3.0")] == [
        "lingbi/server:0.1.0",
        "<none>:<none>",
    ]
    back = leftovers.old(found, "0.2.0")  # after going back, the newer one stays for the way forward
    assert [leftovers.name_of(fact) for fact in back] == ["lingbi/server:0.1.0", "<none>:<none>"]


def test_of_images_made_in_the_same_second_the_one_of_the_higher_version_stays():
    for order in (("0.9.0", "0.10.0"), ("0.10.0", "0.9.0")):
        found = [image("lingbi/server", version, 5) for version in order]
        assert [fact["Tag"] for fact in leftovers.old(found, "0.11.0")] == ["0.9.0"]


def test_times_count_whatever_zone_the_engine_writes_them_in():
    assert leftovers.moment("2026-05-01 20:00:00.123456789 +0800 CST") == NOW
    records = [{"LastUsedAt": "2026-05-01 19:59:59.9 +0800 CST"}, {"LastUsedAt": "2026-05-01 12:00:01 +0000 UTC"}]
    assert leftovers.unused(records, NOW) == records[:1]


@pytest.mark.parametrize(
    ("size", "gb"), [("17.59GB", 17.59), ("580B", 5.8e-7), ("45.3MB", 0.0453), ("1.2kB", 1.2e-6), ("?", 0)]
)
def test_sizes_as_docker_writes_them(size, gb):
    assert leftovers.gigabytes(size) == pytest.approx(gb)


# As the builder described the records of a build of these images, by size, and of builds of others.
DESCRIPTIONS = {
    "cached mount /root/.cache from exec /bin/bash -euo pipefail -c     if [ -s /run/secrets/ca ]; … >/opt/venv/bin/lingbi": True,
    "[stage-4 2/7] COPY --link --from=environment /opt/venv /opt/venv": True,
    "[environment 2/3] COPY docker/uv-requirements.lock docker/ui/requirements.lock /locks/": True,
    "[code 1/3] COPY docker/server/lingbi /opt/lingbi/lingbi": True,
    "[stage-1 3/4] COPY --from=builder /opt/venv /opt/venv": False,
    "mount / from exec /bin/sh -c apt-get -qq update && apt-get -qq install --yes python3": False,
    "local source for context": False,
}


@pytest.mark.parametrize(("description", "is_ours"), DESCRIPTIONS.items())
def test_a_record_is_ours_by_words_of_our_dockerfiles_alone(description, is_ours):
    assert bool(leftovers.OURS.search(description)) == is_ours


@pytest.fixture
def versions(docker_engine, tmp_path):
    """Small images of ours in four versions, one of which lost its name to a newer build, and somebody else's."""

    def build(name: str, tag: str, title: str, text: str) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY {text} /lingbi-{text}\nLABEL {title}\n")
        (tmp_path / text).write_text(f"{text} {tmp_path}")  # new each time: a cached layer would give the image its age
        docker("build", "--quiet", f"--tag={PREFIX}{name}:{tag}", tmp_path)

    ours = "org.opencontainers.image.title=lingbi\\ server"
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
        build("server", version, ours, version)
    build("server", "1.3.0", ours, "anew")
    build("other", "1.0.0", "org.opencontainers.image.title=other", "other")
    yield
    listed = docker("image", "ls", "--quiet", f"{PREFIX}*").stdout.split()
    docker("rmi", "--force", *set(listed), check=False)


def test_older_versions_go_and_nothing_of_others(versions):
    said = []
    soon = datetime.now(timezone.utc) - timedelta(days=1)  # no record is that old
    leftovers.clear(PREFIX, ["server", "other"], "1.3.0", soon, said.append)
    left = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"{PREFIX}*").stdout.split()
    assert sorted(left) == [f"{PREFIX}other:1.0.0", f"{PREFIX}server:1.2.0", f"{PREFIX}server:1.3.0"]
    assert said == ["disk    removed: 3 older image(s)"]


def test_records_of_our_builds_are_found_and_removed(versions):
    def of_these() -> list:
        return [record for record in leftovers.cache() if "/lingbi-1.0.0" in record["Description"]]

    assert of_these()  # one of each time that the images were made
    leftovers.remove_images(leftovers.images(PREFIX, ["server"]))
    leftovers.remove_cache(of_these())
    assert of_these() == [] and any("/lingbi-other" in record["Description"] for record in leftovers.cache())
