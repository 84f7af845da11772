"""Who signs in the lab, and what was signed: digests of images that hosts pull, and archives that they load."""

import json
import subprocess
import sys
from pathlib import Path

from tests.ansible.lab import images
from tests.ansible.lab.lab import ROOT, Lab, docker
from tests.host import archives


def key_of(lab: Lab) -> Path:
    """The key that the lab trusts."""
    key = lab.folder / "release"
    return key if key.exists() else archives.make_key(lab.folder, key.name)


def trusting(lab: Lab) -> dict:
    """Variables of an inventory that trusts that key alone."""
    return {"lingbi_signers_file": str(archives.signers_of(key_of(lab)))}


def sign_digests(lab: Lab, version: str, digests: dict | None = None) -> None:
    """Sign the digests of a version's images, as the tests built them or others, where the playbooks look for them."""
    (lab.folder / "digests").mkdir(exist_ok=True)
    digests = digests or {name: id_of(f"{images.PREFIX}{name}:{version}") for name in archives.NAMES}
    archives.archive(lab.folder / f"digests/lingbi-{version}-digests.tar", version, key_of(lab), digests)


def id_of(image: str) -> str:
    return json.loads(docker("image", "inspect", image))[0]["Id"]


def bundle(lab: Lab, version: str) -> Path:
    """A signed archive of scripts/bundle with the images of a version, named as the hosts know them, and in no registry."""
    file, names = (
        lab.folder / f"lingbi-{version}.tar",
        [f"{lab.pull_prefix}{name}:{version}" for name in archives.NAMES],
    )
    for name, target in zip(archives.NAMES, names, strict=True):
        docker("tag", f"{images.PREFIX}{name}:{version}", target)
    options = ("--version", version, "--prefix", lab.pull_prefix, "--key", key_of(lab), "--to", file)
    command = [sys.executable, "-m", "host.bundle.make", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    docker("rmi", *names)
    assert done.returncode == 0, done.stderr
    return file
