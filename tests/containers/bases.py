"""Stand-ins for the images that the Dockerfiles begin with, made of Debian's packages, where those cannot be pulled.

They are given to a build by name (`--build-context NAME=docker-image://STAND-IN`): the Dockerfiles stay as they are.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
PREFIX = "lingbi-test-base"
DEBIAN = f"{PREFIX}/debian"
one_at_a_time = FileLock("/var/lock/lingbi-tests-bases.lock")  # of all threads and processes that build on them
LIBRARIES = "libbz2-1.0 libffi8 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libuuid1 zlib1g"
PACKAGES = {"nvidia/cuda": LIBRARIES, "python": LIBRARIES, "nginx": "nginx-light"}
FROM = re.compile(r"^FROM (\S+)", re.M)
PYTHON = {"Package": "python3.10", "Version": "3.10.13", "Architecture": "amd64"}
PYTHON |= {"Maintainer": "tests <tests@localhost>", "Description": "this machine's CPython 3.10"}
VENV = PYTHON | {"Package": "python3.10-venv", "Architecture": "all", "Depends": "python3.10"}
VENV["Description"] = "nothing: the stand-in's Python has it; a package that only some stages install, as Ubuntu's"
HOME = "/usr/local/lib/python3.10-home"  # of that CPython
UNREAD = [f"/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")]
SLIM = "".join(f"{option}\n" for option in ("force-unsafe-io", *(f"path-exclude={pattern}" for pattern in UNREAD)))
CONTEXT = "/context"  # where a stand-in's build finds its files
SHELF = "/usr/local/share/packages"  # where the stand-in's apt finds the latter


def external_bases(dockerfile: Path) -> list:
    """The images that a Dockerfile takes from elsewhere."""
    text = dockerfile.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M)) | {"scratch"}
    return sorted({name for name in FROM.findall(text) if name not in stages})


def is_here(tag: str) -> bool:
    """Whether the engine has the image."""
    return subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode == 0


def ensure_debian() -> str:
    """The tag of a minimal Debian, made where it is missing: what all stand-ins and the lab's hosts begin with."""
    with one_at_a_time:
        if not is_here(DEBIAN):
            _import_debian()
    return DEBIAN


def _import_debian() -> None:
    if not shutil.which("mmdebstrap"):
        subprocess.run(["apt-get", "-qq", "install", "--yes", "mmdebstrap"], check=True, capture_output=True)
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chmod(folder, 0o755)
        slim, unread = Path(folder) / "slim", " ".join(f'"$1"{pattern}' for pattern in UNREAD)
        slim.write_text(SLIM)
        # Once all is unpacked: mmdebstrap would look at every file of every package for a pattern, 12 s of a core.
        command.append(f"--customize-hook=copy-in {slim} /etc/dpkg/dpkg.cfg.d")
        command.append(f"--customize-hook=rm -rf {unread}")
        command += ["bookworm", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": folder}) as made:
            subprocess.run(["docker", "import", "-", DEBIAN], stdin=made.stdout, check=True, capture_output=True)
    if made.returncode:
        raise RuntimeError(f"mmdebstrap failed with {made.returncode}")


def ensure_stand_in(base: str) -> str:
    """The tag of the stand-in for a base image, built where it is missing."""
    name = base.split("@")[0]
    tag = f"{PREFIX}/{name.replace(':', '-')}"
    with one_at_a_time:
        if not is_here(tag):
            _build(name.split(":")[0], tag)
    return tag


def _build(name: str, tag: str) -> None:
    family = next((key for key in PACKAGES if name.endswith(key) or key in name), None)
    if family is None:
        raise LookupError(f"no stand-in is known for the base image {name}; add its packages here")
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends >/dev/null"
    steps = ["apt-get -qq update", f"{install} {PACKAGES[family]}", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if family != "nginx":
            steps += _python_steps(Path(folder))
        if family == "nvidia/cuda":  # as Ubuntu's package does; Python's own image has sources only
            steps.append(f"python3.10 -m compileall -q {HOME}/lib/python3.10")
        text = f"FROM {ensure_debian()}\nRUN --mount=type=bind,target={CONTEXT} {' && '.join(steps)}\n"
        (Path(folder) / "Dockerfile").write_text(text)  # on standard input it would stay in /tmp
        command = ["docker", "build", "--network=host", f"--tag={tag}", folder]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{tag}: {done.stderr[-3000:]}")


def _python_steps(folder: Path) -> list:
    """Have this machine's CPython 3.10 in the image as a Debian package, and its venv for apt to install."""
    shelf = folder / "shelf"
    _pack_python(folder / "python3.10", folder / "python3.10.deb")
    shutil.rmtree(folder / "python3.10")
    shelf.mkdir()
    _shelve(folder / "venv", shelf)
    return [
        f"dpkg --install {CONTEXT}/python3.10.deb",
        "ldconfig",
        f"cp -r {CONTEXT}/shelf {SHELF}",
        f"echo 'deb [trusted=yes] file:{SHELF} ./' >/etc/apt/sources.list.d/venv.list",
    ]


def _shelve(tree: Path, shelf: Path) -> None:
    """A package without files, and the index by which apt finds it."""
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_control(VENV))
    package = shelf / "python3.10-venv.deb"
    _pack(tree, package)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    found = VENV | {"Filename": f"./{package.name}", "Size": str(package.stat().st_size), "SHA256": digest}
    (shelf / "Packages").write_text(_control(found))


def _control(fields: dict) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _pack(tree: Path, package: Path) -> None:
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, package]
    subprocess.run(command, check=True, capture_output=True)


def _pack_python(tree: Path, package: Path) -> None:
    source, target = Path(sys.base_prefix), tree / HOME[1:]
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
        (tree / link).symlink_to(f"{HOME}/bin/python3.10")
    loader = tree / "etc/ld.so.conf.d/python3.10.conf"
    loader.parent.mkdir(parents=True)
    loader.write_text(f"{HOME}/lib\n")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(_control(PYTHON))
    _pack(tree, package)


if __name__ == "__main__":
    for file in sorted(ROOT.glob("docker/*/Dockerfile")):
        for base in external_bases(file):
            print(base, ensure_stand_in(base))
