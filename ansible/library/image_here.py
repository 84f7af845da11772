#!/usr/bin/python
"""Brings an image to the host, and returns the digest by which it is to be run."""

DOCUMENTATION = r"""
module: image_here
short_description: Pull or load an image, and return its digest
options:
  name: {type: str, required: true, description: the image with its tag}
  digest: {type: str, default: '', description: 'a reference by digest, if a record holds one'}
  archive: {type: path, default: '', description: archive on the host to load instead of pulling}
  archive_sha256: {type: str, default: '', description: 'checksum of the images in the archive, where it was signed; it is verified before they are loaded'}
  signed: {type: list, elements: str, default: [], description: 'digests that were signed; an image with another one is refused and removed'}
  wait_s: {type: int, default: 3600, description: longest wait for a pull}
author: lingbi
"""
RETURN = r"""
id: {type: str, returned: when the image is here, description: 'the image''s own digest, the same on every host'}
pinned: {type: str, returned: when the image is here, description: a reference by digest}
"""

import hashlib
import json
import shutil
import subprocess
import tarfile

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils.basic import AnsibleModule

LOAD_WAIT_S = 1800
CHUNK_BYTES = 1 << 20


def inspect(name):
    """Docker's description of an image; None if it is not here, or if in check mode the host has no Docker yet."""
    if not shutil.which("docker"):
        return None
    done = docker.run("docker", "image", "inspect", name)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def pinned(name, image):
    """The registry's digest if the image came from this registry, else the image's own."""
    repository = name.rpartition(":")[0]
    own = [digest for digest in image.get("RepoDigests") or [] if digest.split("@")[0] == repository]
    return own[0] if own else image["Id"]


def fetch(module, name):
    """Pull or load an image; fail with Docker's message."""
    archive, wait_s = module.params["archive"], module.params["wait_s"]
    try:
        if archive and module.params["archive_sha256"]:
            check_archive(archive, module.params["archive_sha256"])
        done = load(archive) if archive else docker.run("docker", "pull", "--quiet", name, timeout_s=wait_s)
    except (docker.Failed, subprocess.TimeoutExpired, tarfile.TarError) as error:
        module.fail_json(msg=f"{name} could not be fetched (lingbi_pull_wait_s is {wait_s}): {error}")
    if done.returncode:
        module.fail_json(msg=f"{name} could not be fetched: {done.stderr.strip()[-400:]}")


def load(archive):
    """Load an archive of `docker save`, or the one inside an archive of scripts/bundle; the CompletedProcess."""
    member = inner(archive)
    if not member:
        return docker.run("docker", "load", "--quiet", "--input", archive, timeout_s=LOAD_WAIT_S)
    with subprocess.Popen(["tar", "-xOf", archive, member], stdout=subprocess.PIPE) as unpacking:
        command = ["docker", "load", "--quiet"]
        return subprocess.run(command, stdin=unpacking.stdout, capture_output=True, text=True, timeout=LOAD_WAIT_S)


def check_archive(archive, expected):
    """Raises Failed unless the images in an archive of scripts/bundle are those that were signed."""
    member, digest = inner(archive), hashlib.sha256()
    if not member:
        raise docker.Failed(
            f"{archive} is not the archive that was verified: nothing was loaded; run the playbook again"
        )
    with tarfile.open(archive) as members, members.extractfile(member) as source:
        for data in iter(lambda: source.read(CHUNK_BYTES), b""):
            digest.update(data)
    if digest.hexdigest() != expected:
        raise docker.Failed(
            f"{member} in {archive} was altered: its SHA-256 is {digest.hexdigest()}, and {expected} was signed; nothing was loaded"
        )


def inner(archive):
    """The name of the images' archive inside an archive of scripts/bundle; None for an archive of images."""
    with tarfile.open(archive) as members:
        for member in members:
            if member.name == "manifest.json":
                return None
            if member.name.endswith("/images.tar"):
                return member.name
    return None


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "digest": {"type": "str", "default": ""},
            "archive": {"type": "path", "default": ""},
            "archive_sha256": {"type": "str", "default": ""},
            "signed": {"type": "list", "elements": "str", "default": []},
            "wait_s": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    name, archive = module.params["digest"] or module.params["name"], module.params["archive"]
    before, signed = inspect(name), module.params["signed"]
    is_right = before is not None and is_signed(before, signed)
    if not (is_right and (module.params["digest"] or archive)):
        if module.check_mode:
            module.exit_json(
                changed=not is_right, **(described(name, before) if before else {"id": "", "pinned": name})
            )
        fetch(module, name)
    image = inspect(name)
    if image is None:
        module.fail_json(msg=f"{name} is not in {archive}: set lingbi_version to the archive's version")
    if not is_signed(image, signed):
        refuse(module, name, image, is_new=before is None or before["Id"] != image["Id"])
    module.exit_json(changed=before is None or before["Id"] != image["Id"], **described(name, image))


def is_signed(image, signed):
    """Whether an image is one of those that were signed; any is where nothing was."""
    return not signed or image["Id"] in signed


def refuse(module, name, image, is_new):
    """Fail, and leave no image behind that was not here before."""
    if is_new:
        docker.run("docker", "image", "rm", name)
    module.fail_json(
        msg=f"{name} has the digest {image['Id']}, and {' or '.join(module.params['signed'])} was signed: it is another image and "
        f"{'was removed again' if is_new else 'was here before'}; push or load the one that was signed"
    )


def described(name, image):
    return {"id": image["Id"], "pinned": name if "@" in name else pinned(name, image)}


if __name__ == "__main__":
    main()
