"""Images built with mirrors: packages come from there, and the image knows nothing of it."""

import json

import pytest

from tests.containers import images
from tests.containers.bases import ROOT, ensure_stand_in, external_bases
from tests.containers.images import docker, inspect
from tests.images.conftest import shell
from tests.mirrors.stand_ins import mirror, pass_debian_on, pass_pypi_on

ON_THIS_MACHINE = "--network=host"  # of a build: the mirror answers on this machine's own address


@pytest.fixture
def build(docker_engine):
    """Build an image with options, under a tag of its own; returns the tag."""
    built = []

    def run(name: str, *options: str) -> str:
        built.append(f"{images.PREFIX}mirrored-{name}:{images.VERSION}")
        docker(*images.build_command(name, ON_THIS_MACHINE, f"--tag={built[-1]}", *options), timeout=600)
        return built[-1]

    yield run
    for tag in built:
        docker("rmi", "--force", tag, check=False)


def expect_no_trace(image: str, address: str) -> None:
    """Neither the image's configuration, its history nor any of its files holds the address."""
    assert address not in json.dumps(inspect(image))
    assert address not in docker("history", "--no-trunc", image).stdout
    assert shell(image, f"grep -rIl --exclude-dir=proc --exclude-dir=sys '{address}' / ; find /mnt -mindepth 1") == ""


def test_debians_packages_come_from_the_mirror(build):
    with mirror() as server:
        address = pass_debian_on(server)
        image = build("gateway", f"--build-arg=APT_MIRROR={address}")
        fetched = [path for path in server.asked if path.endswith(".deb")]
    assert any("/python3_" in path for path in fetched), server.asked
    expect_no_trace(image, address.removeprefix("http://"))
    (base,) = external_bases(ROOT / "docker/gateway/Dockerfile")
    listed = "cat /etc/apt/sources.list*/* /etc/apt/sources.list 2>/dev/null || true"
    assert "trixie" in shell(image, listed) and shell(image, listed) == shell(ensure_stand_in(base), listed)


def test_python_packages_come_from_the_mirror(build):
    with mirror() as server:
        index = pass_pypi_on(server)
        image = build("ui", f"--build-arg=INDEX_URL={index}")
        fetched = [path for path in server.asked if path.endswith(".whl")]
    assert any("/uv-" in path for path in fetched) and any("/gradio-" in path for path in fetched), server.asked
    expect_no_trace(image, server.url.removeprefix("http://"))


def test_a_mirror_that_does_not_answer_is_told_with_the_reason(build):
    command = images.build_command("gateway", ON_THIS_MACHINE, "--build-arg=APT_MIRROR=http://127.0.0.1:1")
    done = docker(*command, check=False, timeout=300)
    assert done.returncode != 0 and "Unable to connect to 127.0.0.1:1" in done.stderr, done.stderr[-3000:]


def test_https_without_certificates_is_refused_with_the_remedy(docker_engine):
    (base,) = external_bases(ROOT / "docker/server/Dockerfile")
    script = f"--volume={ROOT / 'docker/apt-sources'}:/apt-sources:ro"
    without = ("run", "--rm", "--network=none", "--tmpfs=/etc/ssl/certs", script, "--entrypoint=sh")
    done = docker(*without, ensure_stand_in(base), "/apt-sources", "/mnt", "https://mirror.example", check=False)
    assert done.returncode == 2 and "begin it with http://" in done.stderr, done.stderr
