"""A controller without internet: Ansible is installed from the wheels that the commands of docs/rollout.md bring."""

import os
import re
import shutil
import subprocess

from tests.ansible import variables

ROOT = variables.ROOT
NEEDED = ("scripts", "ansible", "host", "docker/uv-requirements.in", "docker/uv-requirements.lock")


def commands(heading: str) -> list[str]:
    """The command lines of a section of docs/rollout.md."""
    section = (ROOT / "docs/rollout.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line for block in re.findall(r"```bash\n(.*?)```", section, re.S) for line in block.splitlines()]


def test_ansible_is_installed_from_wheels_that_were_brought(controller, tmp_path):
    """The namespace in which it is installed has no network at all; `controller` says that such tests are not fast."""
    repository = tmp_path / "lingbi"
    for name in NEEDED:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, repository / name)
    lines = commands("The controller without internet")
    fetch = [line for line in lines if "pip download" in line]
    use = [line for line in lines if line.startswith("export ")]
    assert len(fetch) == 2 and len(use) == 1
    options = {"cwd": repository, "capture_output": True, "text": True, "timeout": 300}
    for line in fetch:
        done = subprocess.run(["bash", "-c", line], **options)
        assert done.returncode == 0, done.stderr
    script = f"{use[0]}; exec scripts/lab site --version"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(["unshare", "--net", "bash", "-c", script], env=environment, **options)
    assert done.returncode == 0, done.stderr
    (locked,) = re.findall(r"^ansible-core==(\S+)", (ROOT / "ansible/requirements.lock").read_text(), re.M)
    assert f"[core {locked}]" in done.stdout and (repository / ".venv-lab/locked").exists()
