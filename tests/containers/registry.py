"""A registry of images: Debian's docker-registry, unpacked and started as a process on a port of its own."""

import contextlib
import subprocess
from pathlib import Path

import httpx

from lingbi.launch.supervision import wait_until
from tests import debian
from tests.conftest import free_port

CONFIG = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {folder}/images}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextlib.contextmanager
def running_registry(folder: Path):
    """Yields HOST:PORT. Docker asks a registry at a loopback address without https."""
    debian.apt_get("download", "docker-registry", cwd=folder)
    [package] = folder.glob("docker-registry_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "package"], check=True)
    port = free_port()
    (folder / "registry.yml").write_text(CONFIG.format(folder=folder, port=port))
    command = [folder / "package/usr/bin/docker-registry", "serve", folder / "registry.yml"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            assert wait_until(lambda: _answers(port), 30), (folder / "log").read_text()
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/").status_code == 200
    except httpx.HTTPError:
        return False
