"""What a unit is staged with: the repository's compose files, images by service, and the lines of its env file."""

import re
from pathlib import Path

import yaml

from ansible.errors import AnsibleFilterError


def compose_file(name, repository):
    """A compose file of the repository, as unit_files takes it."""
    return {"content": (Path(repository) / name).read_text(encoding="utf-8"), "mode": "0600"}


def compose_images(compose):
    """{service: image} of a compose file, with the defaults of its variables: Compose would put the same in their places."""
    services = yaml.safe_load(Path(compose).read_text(encoding="utf-8"))["services"]
    return {name: re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", service["image"]) for name, service in services.items()}


def services_of(images):
    """Services of a compose file that declare nothing but their image."""
    return {name: {"image": image} for name, image in images.items()}


def image_references(digests, prefix):
    """{name: reference by digest} of {name: digest} in a registry."""
    return {name: f"{prefix}{name}@{digest}" for name, digest in digests.items()}


def server_port(compose):
    """The port of a host's first worker, as the compose file declares it."""
    return int(re.search(r'^  LINGBI_PORT: "(\d+)"$', Path(compose).read_text(encoding="utf-8"), re.M)[1])


def env_value(value):
    """A value as an env file holds it; single quotes take away every special meaning. Raises AnsibleFilterError."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[\w./:,@%+=-]*", text):
        return text
    if "'" in text or "\n" in text:
        raise AnsibleFilterError(
            f"the value {text!r} holds a quote or a line break, which an env file cannot hold; change it"
        )
    return f"'{text}'"


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_compose_file": compose_file,
            "lingbi_compose_images": compose_images,
            "lingbi_services_of": services_of,
            "lingbi_image_references": image_references,
            "lingbi_server_port": server_port,
            "lingbi_env_value": env_value,
        }
