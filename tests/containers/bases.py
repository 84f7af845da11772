"""Stand-ins for the images that the Dockerfiles begin with, made of Debian's packages, where those cannot be pulled.

They are given to a build by name (`--build-context NAME=docker-image://STAND-IN`): the Dockerfiles stay as they are.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from tests import debian

ROOT = Path(__file__).parents[2]
PREFIX = "lingbi-test-base"
DEBIAN = f"{PREFIX}/debian"
one_at_a_time = FileLock("/var/lock/lingbi-tests-bases.lock")  # of all threads and processes that build on them
LIBRARIES = "libbz2-1.0 libffi8 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libuuid1 zlib1g"
PACKAGES = {"nvidia/cuda": LIBRARIES, "python": LIBRARIES, "nginx": "nginx-light"}
FROM = re.compile(r"^FROM (?:\$\{BASE_REGISTRY\}(?:library/)?)?(\S+)", re.M)  # as Docker shortens the names
BY_US = {"Version": "1", "Maintainer": "tests <tests@localhost>"}
PYTHON = {"nvidia/cuda": "3.10"}  # which CPython a stand-in has where its name does not say
HOME = "/usr/local"  # of that CPython, as in Python's own images: its venvs look for their library beside its programs
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


def ensure_debian(suite: str = "bookworm") -> str:
    """The tag of a minimal Debian, made where it is missing: what all stand-ins and the lab's hosts begin with."""
    tag = f"{DEBIAN}:{suite}"
    with one_at_a_time:
        if not is_here(tag):
            _import_debian(suite, tag)
    return tag


def _import_debian(suite: str, tag: str) -> None:
    debian.ensure("mmdebstrap", has=lambda: shutil.which("mmdebstrap"))
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chmod(folder, 0o755)
        slim, unread = Path(folder) / "slim", " ".join(f'"$1"{pattern}' for pattern in UNREAD)
        slim.write_text(SLIM)
        # Once all is unpacked: mmdebstrap would look at every file of every package for a pattern, 12 s of a core.
        command.append(f"--customize-hook=copy-in {slim} /etc/dpkg/dpkg.cfg.d")
        command.append(f"--customize-hook=rm -rf {unread}")
        command += [suite, "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": folder}) as made:
            subprocess.run(["docker", "import", "-", tag], stdin=made.stdout, check=True, capture_output=True)
    if made.returncode:
        raise RuntimeError(f"mmdebstrap failed with {made.returncode}")


def ensure_stand_in(base: str) -> str:
    """The tag of the stand-in for a base image, built where it is missing."""
    name = base.split("@")[0]
    tag = f"{PREFIX}/{name.replace(':', '-')}"
    with one_at_a_time:
        if not is_here(tag):
            _build(name, tag)
    return tag


def _build(base: str, tag: str) -> None:
    name, _, version = base.partition(":")
    family = next((key for key in PACKAGES if name.endswith(key) or key in name), None)
    if family is None:
        raise LookupError(f"no stand-in is known for the base image {name}; add its packages here")
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends >/dev/null"
    steps = ["apt-get -qq update", f"{install} {PACKAGES[family]}", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if family != "nginx":
            steps += _python_steps(Path(folder), PYTHON.get(family) or ".".join(version.split(".")[:2]))
        if family == "nvidia/cuda":  # as Ubuntu's package does; Python's own image has sources only
            steps.append(f"python3 -m compileall -q {HOME}/lib/python{PYTHON[family]}")
        debian = ensure_debian("trixie" if "trixie" in version else "bookworm")
        # torch's threads spin while they wait, for cores that other tests have.
        text = f"FROM {debian}\nENV OMP_NUM_THREADS=1\nRUN --mount=type=bind,target={CONTEXT} {' && '.join(steps)}\n"
        (Path(folder) / "Dockerfile").write_text(text)  # on standard input it would stay in /tmp
        command = ["docker", "build", "--network=host", f"--tag={tag}", folder]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{tag}: {done.stderr[-3000:]}")


def _python_steps(folder: Path, version: str) -> list:
    """Have this machine's CPython of a version in the image as a Debian package, and its venv for apt to install."""
    shelf, name = folder / "shelf", f"python{version}"
    _pack_python(folder / "python", folder / "python.deb", name)
    shutil.rmtree(folder / "python")
    shelf.mkdir()
    _shelve(folder / "venv", shelf, name)
    return [
        f"dpkg --install {CONTEXT}/python.deb",
        "ldconfig",
        f"cp -r {CONTEXT}/shelf {SHELF}",
        f"echo 'deb [trusted=yes] file:{SHELF} ./' >/etc/apt/sources.list.d/venv.list",
    ]


def _shelve(tree: Path, shelf: Path, name: str) -> None:
    """A package without files, and the index by which apt finds it."""
    fields = {"Package": f"{name}-venv", "Architecture": "all", "Depends": name} | BY_US
    fields["Description"] = (
        "nothing: the stand-in's Python has it; a package that only some stages install, as Ubuntu's"
    )
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_control(fields))
    package = shelf / f"{name}-venv.deb"
    _pack(tree, package)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    found = fields | {"Filename": f"./{package.name}", "Size": str(package.stat().st_size), "SHA256": digest}
    (shelf / "Packages").write_text(_control(found))


def _control(fields: dict) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _pack(tree: Path, package: Path) -> None:
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, package]
    subprocess.run(command, check=True, capture_output=True)


def home_of(name: str) -> Path:
    """The folder of this machine's CPython of a version (python3.13), found or fetched as scripts/environment does."""
    lines = f'source {ROOT}/scripts/environment; pythons=({name.removeprefix("python")}); find_python "$(find_uv)"'
    found = subprocess.run(["bash", "-c", lines], check=True, capture_output=True, text=True).stdout.strip()
    code = "import sys; print(sys.base_prefix)"
    return Path(subprocess.run([found, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def _pack_python(tree: Path, package: Path, name: str) -> None:
    source, target = home_of(name), tree / HOME[1:]
    left_out = shutil.ignore_patterns(
        "test", "tests", "site-packages", "__pycache__", "idlelib", "tkinter", "*.a", "share"
    )
    shutil.copytree(source / "lib" / name, target / "lib" / name, ignore=left_out)
    (target / "lib" / name / "site-packages").mkdir(exist_ok=True)
    for library in source.glob(f"lib/lib{name}.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    (target / "bin").mkdir()
    shutil.copy2(source / "bin" / name, target / "bin" / name)
    for link in (f"usr/bin/{name}", "usr/local/bin/python3"):
        (tree / link).parent.mkdir(parents=True, exist_ok=True)
        (tree / link).symlink_to(f"{HOME}/bin/{name}")
    (tree / "DEBIAN").mkdir()
    fields = {"Package": name, "Architecture": "amd64", "Description": "this machine's CPython"} | BY_US
    (tree / "DEBIAN/control").write_text(_control(fields))
    _pack(tree, package)


if __name__ == "__main__":
    for file in sorted(ROOT.glob("docker/*/Dockerfile")):
        for base in external_bases(file):
            print(base, ensure_stand_in(base))
