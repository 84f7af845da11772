#!/usr/bin/python
"""Removes images of old versions, except those that a unit of this host ran in its last two versions."""

DOCUMENTATION = r"""
module: image_kept
short_description: Keep the images of the version that runs and of the one before
description:
  - Considers only images of the given repositories, and leaves those that a container uses.
options:
  directory: {type: path, required: true, description: folder that holds the units}
  units: {type: list, elements: str, required: true, description: units whose records say what has run}
  repositories: {type: list, elements: str, required: true, description: names of images without a tag}
author: lingbi
"""
RETURN = r"""
removed: {type: list, returned: always, description: ids of the images that were removed}
"""

import os

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule

VERSIONS = 2  # so that a rollback finds its images on the host


def kept(history):
    """References of the images of a unit's last versions; pure."""
    done = [entry for entry in history if entry["result"] == "rolled"]
    versions = list(dict.fromkeys(entry["version"] for entry in reversed(done)))[:VERSIONS]
    return {image for entry in done if entry["version"] in versions for image in entry["images"].values()}


def ids_of(references):
    """Ids of those images that this host has."""
    told = (docker.run("docker", "image", "inspect", "--format", "{{.Id}}", name) for name in sorted(references))
    return {done.stdout.strip() for done in told if done.returncode == 0}


def ids_in(repository):
    return set(docker.said("docker", "image", "ls", "--no-trunc", "--quiet", repository).split())


def main():
    names = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={"directory": {"type": "path", "required": True}, "units": names, "repositories": names},
        supports_check_mode=True,
    )
    params = module.params
    try:
        records = [unit.history(os.path.join(params["directory"], name)) for name in params["units"]]
        stay = ids_of(set().union(*map(kept, records)))
        old = set().union(*map(ids_in, params["repositories"])) - stay if stay else set()
        if not module.check_mode:
            # Docker itself refuses those that a container uses.
            old = {name for name in old if docker.run("docker", "rmi", "--force", name).returncode == 0}
    except docker.Failed as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(old), removed=sorted(old))


if __name__ == "__main__":
    main()
