"""Stand-ins for the images that the Dockerfiles begin with, made of Debian's packages, where those cannot be pulled.

They are given to a build by name (`--build-context NAME=docker-image://STAND-IN`): the Dockerfiles stay as they are.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX = "lingbi-test-base"
LIBRARIES = "ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g"
PACKAGES = {"nvidia/cuda": LIBRARIES, "python": LIBRARIES, "nginx": "nginx-light,ca-certificates"}
FROM = re.compile(r"^FROM (\S+)", re.M)
CONTROL = """\
Package: python3.10
Version: 3.10.13
Architecture: amd64
Maintainer: tests <tests@localhost>
Provides: python3.10-venv
Description: this machine's CPython 3.10
"""


def external_bases(dockerfile: Path) -> list:
    """The images that a Dockerfile takes from elsewhere."""
    text = dockerfile.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M)) | {"scratch"}
    return sorted({name for name in FROM.findall(text) if name not in stages})


def ensure_stand_in(base: str) -> str:
    """The tag of the stand-in for a base image, built where it is missing."""
    name = base.split("@")[0]
    tag = f"{PREFIX}/{name.replace(':', '-')}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode:
        _build(name.split(":")[0], tag)
    return tag


def _build(name: str, tag: str) -> None:
    family = next((key for key in PACKAGES if name.endswith(key) or key in name), None)
    if family is None:
        raise LookupError(f"no stand-in is known for the base image {name}; add its packages here")
    if not shutil.which("mmdebstrap"):
        subprocess.run(["apt-get", "-qq", "install", "--yes", "mmdebstrap"], check=True, capture_output=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        hooks = _python_hooks(Path(folder)) if family != "nginx" else []
        slim = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")]
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            *slim,
            f"--include={PACKAGES[family]}",
            *hooks,
            "bookworm",
        ]
        with subprocess.Popen([*command, "-"], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": folder}) as made:
            subprocess.run(["docker", "import", "-", tag], stdin=made.stdout, check=True, capture_output=True)
        if made.returncode:
            raise RuntimeError(f"mmdebstrap failed with {made.returncode}")


def _python_hooks(folder: Path) -> list:
    """Have this machine's CPython 3.10 in the image as a Debian package, with the certificates trusted here."""
    package = folder / "python3.10.deb"
    _pack_python(folder / "python3.10", package)
    return [
        f"--customize-hook=copy-in {package} /tmp",
        '--customize-hook=chroot "$1" sh -c "dpkg -i /tmp/python3.10.deb && rm /tmp/python3.10.deb && ldconfig"',
    ]


def _pack_python(tree: Path, package: Path) -> None:
    source, target = Path(sys.base_prefix), tree / "usr/local/lib/python3.10-home"
    left_out = shutil.ignore_patterns(
        "test", "tests", "site-packages", "__pycache__", "idlelib", "tkinter", "*.a", "share"
    )
    shutil.copytree(source / "lib/python3.10", target / "lib/python3.10", ignore=left_out)
    (target / "lib/python3.10/site-packages").mkdir(exist_ok=True)
    for library in source.glob("lib/libpython3.10.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    (target / "bin").mkdir()
    shutil.copy2(Path(sys.base_prefix, "bin/python3.10"), target / "bin/python3.10")
    for link in ("usr/bin/python3.10", "usr/local/bin/python3.10", "usr/local/bin/python3"):
        (tree / link).parent.mkdir(parents=True, exist_ok=True)
        (tree / link).symlink_to("/usr/local/lib/python3.10-home/bin/python3.10")
    loader = tree / "etc/ld.so.conf.d/python3.10.conf"
    loader.parent.mkdir(parents=True)
    loader.write_text("/usr/local/lib/python3.10-home/lib\n")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(CONTROL)
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, package], check=True, capture_output=True
    )


if __name__ == "__main__":
    for file in sorted(ROOT.glob("docker/*/Dockerfile")):
        for base in external_bases(file):
            print(base, ensure_stand_in(base))
