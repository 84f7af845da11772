#!/usr/bin/python
"""Removes images of old versions, except those that a unit of this host ran in its last versions."""

DOCUMENTATION = r"""
module: image_kept
short_description: Keep the images of the last versions and remove the others
description:
  - Considers only images of the given repositories, and leaves those that a container uses.
options:
  directory: {type: path, required: true, description: folder that holds the units}
  units: {type: list, elements: str, required: true, description: units whose records say what has run}
  repositories: {type: list, elements: str, required: true, description: names of images without a tag}
  versions: {type: int, default: 2, description: 'how many versions of a unit stay, so that a rollback finds its images; 0: none'}
author: lingbi
"""
RETURN = r"""
removed: {type: list, returned: always, description: ids of the images that were removed}
"""

import os
import shutil

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule


def kept(history, count):
    """References of the images of a unit's last versions; pure."""
    done = [entry for entry in history if entry["result"] == "rolled"]
    versions = list(dict.fromkeys(entry["version"] for entry in reversed(done)))[:count]
    return {image for entry in done if entry["version"] in versions for image in entry["images"].values()}


def ids_of(references):
    """Ids of those images that this host has."""
    told = (docker.run("docker", "image", "inspect", "--format", "{{.Id}}", name) for name in sorted(references))
    return {done.stdout.strip() for done in told if done.returncode == 0}


def ids_in(repository):
    return set(docker.said("docker", "image", "ls", "--no-trunc", "--quiet", repository).split())


def outdated(repositories, stay, count):
    """Ids of the images to remove: without a record of what has run nobody knows what is old, unless none is to stay."""
    return set().union(*map(ids_in, repositories)) - stay if stay or count == 0 else set()


def main():
    names = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "units": names,
            "repositories": names,
            "versions": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not shutil.which("docker"):
        module.exit_json(changed=False, removed=[])
    try:
        records = [unit.history(os.path.join(params["directory"], name)) for name in params["units"]]
        stay = ids_of(set().union(*(kept(history, params["versions"]) for history in records)))
        old = outdated(params["repositories"], stay, params["versions"])
        if not module.check_mode:
            # Docker itself refuses those that a container uses.
            old = {name for name in old if docker.run("docker", "rmi", "--force", name).returncode == 0}
    except docker.Failed as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(old), removed=sorted(old))


if __name__ == "__main__":
    main()
