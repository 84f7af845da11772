"""The stack's own images, built once a session from their Dockerfiles on the bases' stand-ins."""

import json
import os
import re
import subprocess
from pathlib import Path

from host.images.mirrors import build_options
from tests.containers.bases import ROOT, ensure_stand_in, external_bases

PREFIX, VERSION = "lingbi-test/", "0.0.1-test"
NAMES = ("server", "ui", "gateway")
AUTHORITIES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))


def tag(name: str) -> str:
    return f"{PREFIX}{name}:{VERSION}"


def docker(*arguments, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run docker; its output is in the result, and in the failure."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"docker {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}"
    return done


def build_command(name: str, *options: str, context: Path = ROOT) -> list:
    """The build of an image, with stand-ins for what it begins with."""
    file = context / "docker" / name / "Dockerfile"
    command = ["build", "--progress=plain", "--file", str(file), f"--build-arg=VERSION={VERSION}"]
    for base in external_bases(file):
        command += ["--build-context", f"{base}=docker-image://{ensure_stand_in(base)}"]
    command += build_options(file.read_text(), {}, {})  # as in a real build, so that each finds the other's layers
    return [*command, f"--secret=id=ca,src={AUTHORITIES}", *options, str(context)]


def build(name: str, downloads_stay: bool = True) -> str:
    """Build an image; returns its tag. Downloads are gone before the 5 GB of the environment are copied into it."""
    if not downloads_stay and "AS environment" in (ROOT / "docker" / name / "Dockerfile").read_text():
        docker(*build_command(name, "--target=environment", "--output=type=cacheonly"), timeout=900)
        docker("builder", "prune", "--force", "--filter=type=exec.cachemount")
    docker(*build_command(name, f"--tag={tag(name)}"), timeout=900)
    return tag(name)


def inspect(thing: str) -> dict:
    return json.loads(docker("inspect", thing).stdout)[0]


def bytes_of(image: str) -> int:
    return inspect(image)["Size"]


def worrying(log: str, expected: dict) -> list:
    """Lines of a container's log that say something is wrong, but for those that {pattern: reason} lists."""
    found = [
        line
        for line in log.splitlines()
        if re.search(r"WARN|Warning|ERROR|CRIT|Traceback|\[(warn|error|crit|alert|emerg)\]", line)
    ]
    return [line for line in found if not any(re.search(pattern, line) for pattern in expected)]
