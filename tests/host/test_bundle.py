"""A bundle is whole, proves itself, loads, and stops where it is spoiled."""

import subprocess
import sys

import pytest

from host.bundle import make, statement
from host.images.digests import look_up
from tests.conftest import ROOT
from tests.containers import images
from tests.containers.images import docker
from tests.host.archives import make_key, signers_of


@pytest.fixture
def small_images(docker_engine, tmp_path):
    """Images under the names of ours that are quickly saved: nothing here depends on what is in them."""
    prefix = "lingbi-test-small/"
    (tmp_path / "context").mkdir()
    for name in images.NAMES:
        (tmp_path / "context" / "Dockerfile").write_text(
            f"FROM scratch\nCOPY Dockerfile {make.BILL.format(name=name)}\n"
        )
        docker("build", "--quiet", f"--tag={prefix}{name}:1.0.0", tmp_path / "context")
    yield prefix
    docker("rmi", "--force", *(f"{prefix}{name}:1.0.0" for name in images.NAMES), check=False)


def bundle(*arguments):
    command = [sys.executable, "-m", "host.bundle.make", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_loads_elsewhere_and_a_spoiled_one_does_not(small_images, tmp_path):
    weights = tmp_path / "tiny"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    archive = tmp_path / "lingbi-1.0.0.tar"
    done = bundle("--to", archive, "--version", "1.0.0", "--prefix", small_images, "--weights", weights)
    assert done.returncode == 0 and "lingbi-1.0.0/load" in done.stdout, done.stderr
    subprocess.run(["tar", "-xf", archive], cwd=tmp_path, check=True)
    folder = tmp_path / "lingbi-1.0.0"
    for file in (
        "compose.yaml",
        "scripts/up",
        "host/start/up.py",
        "settings/schema.json",
        "models/tiny/config.json",
    ):
        assert (folder / file).is_file(), file
    assert (folder / "VERSION").read_text() == "1.0.0\n"
    assert (folder / "IMAGE_PREFIX").read_text() == f"{small_images}\n"
    machine = "from host.machine import Machine; m = Machine(None, '', None, False, [])"
    code = f"{machine}; from host import stack; from host.start import decide; print(stack.image(decide.first_values(m), 'ui'))"
    there = subprocess.run([sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True)
    assert there.stdout.strip() == f"{small_images}ui:1.0.0", there.stderr
    docker("rmi", "--force", *(f"{small_images}{name}:1.0.0" for name in images.NAMES))
    loaded = subprocess.run([folder / "load"], capture_output=True, text=True)
    assert loaded.returncode == 0 and "scripts/up --docker --model ./models/tiny" in loaded.stdout, loaded.stderr
    assert docker("image", "inspect", f"{small_images}gateway:1.0.0").returncode == 0
    assert "nobody's signature was verified" in loaded.stderr
    (folder / "compose.yaml").write_text("spoiled")
    loaded = subprocess.run([folder / "load"], capture_output=True, text=True)
    assert loaded.returncode == 2 and "compose.yaml was altered" in loaded.stderr


def test_a_signed_one_is_verified_before_it_is_loaded_and_holds_each_images_bill(small_images, tmp_path):
    """The digests that are signed are those by which this engine knows the images before and after."""
    release, stranger = (make_key(tmp_path, name) for name in ("release", "stranger"))
    archive, tags = tmp_path / "lingbi-1.0.0.tar", [f"{small_images}{name}:1.0.0" for name in images.NAMES]
    done = bundle("--to", archive, "--version", "1.0.0", "--prefix", small_images, "--key", release)
    assert done.returncode == 0 and f"signed with {release}" in done.stdout, done.stderr
    verified = statement.verify(archive, signers_of(release), "1.0.0")
    assert [image["tag"] for image in verified.images.values()] == tags
    ids = {tag: images.inspect(tag)["Id"] for tag in tags}
    assert all(ids[image["tag"]] in image["digests"] for image in verified.images.values())
    subprocess.run(["tar", "-xf", archive], cwd=tmp_path, check=True)
    folder = tmp_path / "lingbi-1.0.0"
    assert f"FROM scratch\nCOPY Dockerfile {make.BILL.format(name='ui')}" in (folder / "sbom/ui.cdx.json").read_text()
    docker("rmi", "--force", *tags)
    for signers, status in ((stranger, 2), (release, 0)):
        loaded = subprocess.run([folder / "load", "--signers", signers_of(signers)], capture_output=True, text=True)
        assert loaded.returncode == status and ("signed by another key" in loaded.stderr) == (status == 2), loaded
        is_here = [docker("image", "inspect", tag, check=False).returncode == 0 for tag in tags]
        assert is_here == [status == 0] * 3
    assert {tag: images.inspect(tag)["Id"] for tag in tags} == ids
    on_engine = subprocess.run(
        [ROOT / "scripts/signature", "verify", archive, "--engine"], capture_output=True, text=True
    )
    assert on_engine.returncode == 0, on_engine.stderr


def test_what_is_signed_for_a_registry_is_what_it_gives(small_images, registry, tmp_path):
    """Without images in the archive: the digest that the registry gave, too, and none before it was asked."""
    release, prefix = make_key(tmp_path, "release"), f"{registry}/lingbi-test-small/"
    tags = [f"{prefix}{name}:1.0.0" for name in images.NAMES]
    options = ("--no-images", "--version", "1.0.0", "--prefix", prefix, "--key", release, "--to", tmp_path / "d.tar")
    try:
        for name, tag in zip(images.NAMES, tags, strict=True):
            docker("tag", f"{small_images}{name}:1.0.0", tag)
        done = bundle(*options)
        assert done.returncode == 2 and f"{tags[0]}, " in done.stderr and "docker push it first" in done.stderr
        for tag in tags:
            docker("push", "--quiet", tag)
        done = bundle(*options)
        assert done.returncode == 0, done.stderr
        verified = statement.verify(tmp_path / "d.tar", signers_of(release), "1.0.0")
        for name, tag in zip(images.NAMES, tags, strict=True):
            assert {look_up(tag), images.inspect(tag)["Id"]} <= set(verified.images[name]["digests"])
        assert verified.saved_sha256 == "" and (tmp_path / "d.tar").stat().st_size < 1_000_000
    finally:
        docker("rmi", "--force", *tags, check=False)


def test_an_image_without_a_bill_is_refused(small_images, tmp_path):
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /other\n")
    docker("build", "--quiet", f"--tag={small_images}ui:1.0.0", tmp_path / "context")
    done = bundle("--to", tmp_path / "x.tar", "--version", "1.0.0", "--prefix", small_images)
    assert done.returncode == 2 and f"{small_images}ui:1.0.0 has no bill of materials" in done.stderr
    assert not list(tmp_path.glob("x.tar*"))


def test_a_key_that_cannot_sign_is_refused_before_anything_is_saved(small_images, tmp_path):
    key = make_key(tmp_path, "release")
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    done = bundle("--to", tmp_path / "x.tar", "--version", "1.0.0", "--prefix", small_images, "--key", key)
    assert done.returncode == 2 and f"--key {key}: ssh-keygen does not sign with it" in done.stderr
    assert not list(tmp_path.glob("x.tar*"))


def test_images_that_are_not_here_are_named(docker_engine, tmp_path):
    done = bundle("--to", tmp_path / "x.tar", "--version", "0.0.0", "--prefix", "lingbi-test-none/")
    assert done.returncode == 2 and "lingbi-test-none/server:0.0.0" in done.stderr and not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_refused(small_images, tmp_path):
    done = bundle("--to", tmp_path / "x.tar", "--version", "1.0.0", "--prefix", small_images, "--weights", tmp_path)
    assert done.returncode == 2 and "there is no config.json in it" in done.stderr
