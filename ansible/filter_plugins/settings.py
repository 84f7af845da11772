"""What an inventory may set: which variables there are, which values, and which settings of the programs."""

import importlib.util
import re
from pathlib import Path

import yaml

PREFIX = "lingbi_"
INTERNAL = "lingbi_run_"  # for what the playbooks themselves set


def unknown_variables(names, known):
    """A sentence for each variable that has lingbi's prefix and does not exist."""
    wrong = sorted(name for name in names if name.startswith(PREFIX) and name not in known and not is_own(name))
    return [f"{name}: there is no such variable; {schema.remedy(name, known)}" for name in wrong]


def is_own(name):
    """Whether the playbooks themselves set a variable."""
    return name.startswith(INTERNAL)


def _beside(path):
    """A module of this repository that Ansible's own path does not lead to."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).resolve().parents[2] / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


schema = _beside("host/schema.py")
SETTINGS_OF = {  # variable: (parts that declare them, services that get them, the role whose environment has the rest)
    "lingbi_settings": (["server"], ["server", "weights"], "server"),
    "lingbi_gateway_settings": (["gateway", "page"], ["gateway", "ui"], "gateway"),
}


def value_faults(values):
    """A sentence for each value that is wrong although its type is right."""
    faults = []
    if not isinstance(values["version"], str):
        faults.append(
            f"lingbi_version: {values['version']} is a number to YAML, which reads 1.10 as 1.1; put it in quotes"
        )
    elif not schema.fits("LINGBI_VERSION", values["version"]):
        faults.append(f"lingbi_version: {values['version']!r} is no version; give one as in 1.2.0")
    if not re.fullmatch(r"[1-9]\d*|[1-9]\d?%|100%", str(values["serial"])):
        faults.append(
            f"lingbi_serial: {values['serial']} is neither a number of hosts nor a percentage, as in 2 or 10%"
        )
    return faults + digest_faults(values["image_digests"])


def digest_faults(image_digests):
    """A sentence for each entry of lingbi_image_digests that would not hold an image to anything."""
    return [
        f"lingbi_image_digests: {version}: {name}: {digest}: give server, ui or gateway with sha256: and 64 digits, as "
        "scripts/lab images prints them"
        for version, images in image_digests.items()
        for name, digest in (images.items() if isinstance(images, dict) else [(images, "")])
        if name not in ("server", "ui", "gateway") or not re.fullmatch("sha256:[0-9a-f]{64}", str(digest))
    ] + [
        f"lingbi_image_digests: {version} is a number to YAML; put it in quotes"
        for version in image_digests
        if not isinstance(version, str)
    ]


def mirror_faults(daemon, repositories):
    """A sentence for each address that would have the engine not start again, or apt refuse every package source.

    daemon: lingbi_docker_daemon. `dockerd --validate` looks at no mirror; a daemon that then starts does, and ends.
    repositories: {variable: its address}, empty for the host's own sources.
    """
    faults = [
        f"lingbi_docker_daemon: the registry mirror {mirror} is no address that dockerd takes: give https://HOST, without "
        "path and login"
        for mirror in daemon.get("registry-mirrors", [])
        if not re.fullmatch(r"https?://[\w.-]+(:\d+)?/?", str(mirror))
    ]
    faults += [
        f"lingbi_docker_daemon: the registry {registry} is no HOST:PORT or network; leave http:// out"
        for registry in daemon.get("insecure-registries", [])
        if "://" in str(registry)
    ]
    return faults + [
        f"{name}: {address} is no address; give it as in https://mirror.example/docker-ce/linux, or leave it empty"
        for name, address in repositories.items()
        if address and not re.fullmatch(r"https?://[^/\s]+\S*", address)
    ]


def setting_faults(given, variable, repository):
    """Sentences for names in lingbi_settings or lingbi_gateway_settings that are no settings, or not an inventory's."""
    parts, services, role = SETTINGS_OF[variable]
    declared = {setting.name for setting in schema.declared(*parts)}
    fixed = fixed_settings(Path(repository), services, role)
    faults = [f"{name}: the playbooks set it; leave it out" for name in sorted(set(given) & fixed)]
    unknown = sorted(set(given) - declared - fixed)
    return [
        f"{variable}: {fault}"
        for fault in faults + [f"{name}: no such setting; {schema.remedy(name, declared)}" for name in unknown]
    ]


def fixed_settings(repository, services, role):
    """Names whose values the compose file or the role gives; another one would be lost, or two would stand there."""
    compose = yaml.safe_load((repository / "compose.yaml").read_text(encoding="utf-8"))["services"]
    rendered = yaml.safe_load((repository / f"ansible/roles/{role}/vars/main.yml").read_text(encoding="utf-8"))
    given = {
        name: str(value) for service in services for name, value in compose[service].get("environment", {}).items()
    }
    by_role = {name for part, values in rendered.items() if part.endswith("_environment") for name in values}
    return {name for name, value in given.items() if f"${{{name}" not in value} | by_role


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_unknown_variables": unknown_variables,
            "lingbi_setting_faults": setting_faults,
            "lingbi_value_faults": value_faults,
            "lingbi_mirror_faults": mirror_faults,
        }
