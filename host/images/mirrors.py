"""Where builds get packages and base images from: checks of these settings, and what `docker build` gets of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from host.errors import Refusal

ADDRESSES = ("LINGBI_INDEX_URL", "LINGBI_PYTHON_MIRROR", "LINGBI_APT_MIRROR")
ARGUMENTS = {
    "INDEX_URL": "LINGBI_INDEX_URL",
    "APT_MIRROR": "LINGBI_APT_MIRROR",
    "BASE_REGISTRY": "LINGBI_BASE_REGISTRY",
}
IN_SHELL = {"LINGBI_INDEX_URL": "BUILD_INDEX_URL", "LINGBI_CA_FILE": "BUILD_CA_FILE"}  # go before the settings
USED = re.compile(r"^ARG (\w+)$", re.M)


def check(values: Mapping[str, str]) -> None:
    """Raise Refusal for a mirror that no build could use."""
    for name in ADDRESSES:
        address = values.get(name, "")
        if address and not re.fullmatch(r"https?://[^/\s]+\S*", address):
            raise Refusal(f"{name}={address!r} in .env: give an address, as in http://mirror.example")
        if "@" in address.partition("://")[2].partition("/")[0]:
            raise Refusal(f"{name} in .env holds a login, and .env may hold no secrets; {_without_login(name)}")
    if values.get("LINGBI_APT_MIRROR", "").startswith("https:"):
        raise Refusal(
            f"LINGBI_APT_MIRROR={values['LINGBI_APT_MIRROR']!r} in .env: begin it with http://, since CUDA's base image has "
            "no certificates; apt checks every package by its signature"
        )
    registry = values.get("LINGBI_BASE_REGISTRY", "")
    if registry and not re.fullmatch(r"[\w.-]+(:\d+)?/([\w.-]+/)*", registry):
        raise Refusal(
            f"LINGBI_BASE_REGISTRY={registry!r} in .env: give HOST/, as in mirror.example:5000/, without https://"
        )
    file = values.get("LINGBI_CA_FILE", "")
    if file and not _is_certificate(Path(file)):
        raise Refusal(f"LINGBI_CA_FILE={file!r} in .env: there is no certificate in PEM form; give such a file's path")


def _without_login(name: str) -> str:
    if name == "LINGBI_INDEX_URL":
        return f"give it in the shell: {IN_SHELL[name]}=… scripts/up --docker"
    return "give a mirror that needs none"


def _is_certificate(file: Path) -> bool:
    return file.is_file() and "BEGIN CERTIFICATE" in file.read_text(encoding="utf-8", errors="replace")


def build_options(dockerfile: str, values: Mapping[str, str], shell: Mapping[str, str]) -> list[str]:
    """The options of `docker build` for a Dockerfile's text: the mirrors that it knows, and certificates.

    values: as in .env. shell: the environment, whose BUILD_INDEX_URL and BUILD_CA_FILE go before the settings.
    """

    def given(name: str) -> str:
        return shell.get(IN_SHELL.get(name, ""), "") or values.get(name, "")

    known = [argument for argument in ARGUMENTS if argument in USED.findall(dockerfile)]
    # Empty ones too, as Compose gives them: then each finds in the builder's cache what the other has built.
    options = [part for name in known for part in ("--build-arg", f"{name}={given(ARGUMENTS[name])}")]
    ca_file = given("LINGBI_CA_FILE")
    return options + (["--secret", f"id=ca,src={ca_file}"] if ca_file else [])
