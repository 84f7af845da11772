"""A machine made of programs that say what they are told: docker, nvidia-smi. host.start.up meets it end to end."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DOCKER = """\
#!/bin/sh
echo "$*" >>"{folder}/calls"
case "$*" in
    "info --format "*DockerRootDir*) {disk} ;;
    info*) cat "{folder}/info" ;;
    *"compose version"*) {compose} ;;
    "image inspect"*) {missing} ;;
    "build "*) {build} ;;
    *"config --format json"*) cat "{folder}/config" ;;
    *" run --rm --no-deps "*) {weights} ;;
    *" doctor"*) {doctor} ;;
    *" render"*) {render} ;;
    *"compose --project-directory"*" port "*) {published} ;;
    *"compose --project-directory"*" ps "*) {running} ;;
    "volume inspect"*) exit 1 ;;
    "network ls"*) echo networks ;;
    "network inspect"*) cat "{folder}/networks" ;;
    ps*) {others} ;;
    *"compose --project-directory"*" up "*) {up} ;;
    *"compose --project-directory"*" exec "*" sh "*) {record} ;;
    *"compose --project-directory"*" exec "*) echo lb-key ;;
esac
"""


@dataclass
class FakeMachine:
    """Programs in a folder that is the whole PATH."""

    folder: Path

    def __post_init__(self):
        for name in ("sh", "cat"):
            (self.folder / name).symlink_to(shutil.which(name))

    def have_docker(self, version: str = "26.1.5", runtimes=("nvidia",), **answers: str) -> None:
        """An engine of a version. answers: shell code for compose, weights, doctor, render, published, running, others,
        missing (whether an image is here), build, disk, up (what starts the containers), record (of that start)."""
        info = {"ServerVersion": version, "Runtimes": {name: {} for name in runtimes}}
        (self.folder / "info").write_text(json.dumps(info))
        images = {name: {"image": f"lingbi/{name}:1.0.0"} for name in ("weights", "server", "ui", "gateway")}
        named = {name: {"name": f"lingbi-test-fake_{name}"} for name in ("inside", "outside", "edge")}
        config = {"name": "lingbi-test-fake", "services": images, "networks": named, "volumes": {}}
        (self.folder / "config").write_text(json.dumps(config))
        self.have_networks()
        silent = dict.fromkeys(
            ("weights", "doctor", "render", "published", "running", "others", "missing", "build", "disk", "record"),
            "true",
        )
        silent |= {"compose": "echo 2.30.1", "up": 'echo "the containers would be started" >&2; exit 1'}
        self.have("docker", DOCKER.format(folder=self.folder, **(silent | answers)))

    def have_networks(self, *networks: dict) -> None:
        """What `docker network inspect` says."""
        (self.folder / "networks").write_text(json.dumps(networks))

    def have_gpus(self, *lines: str, capabilities: tuple = ("8.9",)) -> None:
        """What `nvidia-smi -L` lists, and the compute capability of each card."""
        listed, asked = ("".join(f"echo '{line}'\n" for line in some) for some in (lines, capabilities))
        self.have("nvidia-smi", f'#!/bin/sh\nif [ "$1" = -L ]; then\n{listed}else\n{asked}fi\n')

    def have(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def calls(self) -> list:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def run(self, root: Path, module: str, *arguments, **environment) -> subprocess.CompletedProcess:
        """A module of a copy of the repository on this machine."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
        values = inherited | {"PATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(command, cwd=root, env=values, capture_output=True, text=True, timeout=60)
