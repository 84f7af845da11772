"""A stand-in for the mirror of CPython's builds that uv fetches: this machine's own CPython, packed as those builds are.

uv knows the hashes of the published builds, so it is given a list of its own (UV_PYTHON_DOWNLOADS_JSON_URL) with the hash of
these; all else is uv's: the address in the mirror, the check, and what it does with the archive.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.containers.bases import home_of
from tests.mirrors.stand_ins import Mirror

PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"  # what a mirror stands in place of
LEFT_OUT = ("/test/", "/tests/", "/site-packages/", "/__pycache__/", "/idlelib/", "/tkinter/", "/turtledemo/")


def offer(server: Mirror, minor: str, builds: Path, digest: str = "") -> str:
    """Have a mirror offer the CPython of a version (3.10), and write uv's list of builds. A digest other than the archive's is
    listed as that of the published build. Returns the path that uv asks the mirror for."""
    version = f"{minor}.99"  # newer than any that uv would prefer
    path = f"/builds/20300101/cpython-{version}%2B20300101-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
    packed = pack(home_of(f"python{minor}"), minor)
    server.files[path] = packed
    listed = json.loads(builds.read_text()) if builds.exists() else {}
    listed[f"cpython-{version}-linux-x86_64-gnu"] = {
        "name": "cpython",
        "arch": {"family": "x86_64", "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": int(minor.split(".")[0]),
        "minor": int(minor.split(".")[1]),
        "patch": 99,
        "prerelease": "",
        "url": PUBLISHED + path.removeprefix("/builds"),
        "sha256": digest or hashlib.sha256(packed).hexdigest(),
        "variant": None,
        "build": "20300101",
    }
    builds.write_text(json.dumps(listed))
    return path


def pack(home: Path, minor: str) -> bytes:
    """A CPython as an archive that works wherever it is unpacked."""
    name, packed = f"python{minor}", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        add(archive, f"python/bin/{name}", relocatable((home / "bin" / name).read_bytes(), home), 0o755)
        for link in ("python3", "python"):
            entry = tarfile.TarInfo(f"python/bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, name
            archive.addfile(entry)
        for library in home.glob(f"lib/lib{name}.so.*"):
            add(archive, f"python/lib/{library.name}", library.read_bytes(), 0o755)
        for file in sorted((home / "lib" / name).rglob("*")):
            place = f"/{file.relative_to(home)}"
            if file.is_file() and not any(part in place for part in LEFT_OUT) and file.suffix != ".a":
                add(archive, f"python{place}", file.read_bytes(), 0o644)
    return packed.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def relocatable(program: bytes, home: Path) -> bytes:
    """The program with its library looked for beside it, as a build of uv's has it; as long as before."""
    before = f"{home}/lib\0".encode()
    return program.replace(before, b"$ORIGIN/../lib".ljust(len(before), b"\0"))
