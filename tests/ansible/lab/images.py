"""The image of a lab host: Debian made here, since none can be pulled, and what a bare server has."""

import subprocess
import tempfile
from pathlib import Path

from tests.containers import engine
from tests.containers.bases import PREFIX as BASES
from tests.containers.bases import ensure_debian, ensure_stand_in, external_bases

HOST = f"{BASES}/lab-host"
FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]


PREFIX = "lingbi-test-lab/"


def build_host() -> str:
    """Build the image of a host where it is not here as it should be; returns its name."""
    base = ensure_debian()
    with tempfile.TemporaryDirectory() as apt:
        _write(Path(apt) / "preferences.d/engine", engine.PREFERENCES)
        _write(Path(apt) / "sources.list.d/engine.sources", engine.sources())
        given = ("--build-context", f"apt={apt}", "--build-arg", f"BASE={base}")
        build(FOLDER / "machine", HOST, *given)
    return HOST


def _write(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)


def build_product(prefix: str, version: str) -> None:
    """Build server, page and gateway as PREFIX server:VERSION …, from their own Dockerfiles; the two environments stay out."""
    for name, source, python in (("server", "/opt/lab/server", "3.10"), ("ui", "/opt/lab/ui", "3.13")):
        file = ROOT / "docker" / name / "Dockerfile"
        (base,) = external_bases(file)
        contexts = ["--build-context", f"{base}=docker-image://{ensure_stand_in(base)}"]
        for stage in ("base", "environment"):
            tag = f"{BASES}/lab-{name}-{stage}"
            arguments = (f"BASE={ensure_stand_in(base)}", f"SOURCE={source}", f"PYTHON={python}")
            build(
                FOLDER / "thin", tag, *(part for item in arguments for part in ("--build-arg", item)), "--target", stage
            )
            contexts += ["--build-context", f"{stage}=docker-image://{tag}"]
        build(ROOT, f"{prefix}{name}:{version}", "--file", file, "--build-arg", f"VERSION={version}", *contexts)
    file = ROOT / "docker/gateway/Dockerfile"
    (base,) = external_bases(file)
    context = ("--build-context", f"{base}=docker-image://{ensure_stand_in(base)}")
    build(ROOT, f"{prefix}gateway:{version}", "--file", file, "--build-arg", f"VERSION={version}", *context)


def remove_product(prefix: str) -> None:
    """Remove the images of all versions; what they are built on stays for the next time."""
    listed = subprocess.run(
        ["docker", "images", "--quiet", f"{prefix}*"], capture_output=True, text=True
    ).stdout.split()
    if listed:
        subprocess.run(["docker", "rmi", "--force", *sorted(set(listed))], capture_output=True)


def build(folder: Path, tag: str, *options) -> None:
    """docker build; what it says is in the failure."""
    command = ["docker", "build", "--network", "host", "--tag", tag, *map(str, options), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{tag}: {done.stderr[-3000:]}"


def build_text(text: str, tag: str) -> None:
    """Build a Dockerfile that is no file; given on standard input, it and a folder for it stay in /tmp."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(text)
        build(Path(folder), tag)


# What can be wrong with a version, as the end of a Dockerfile on top of one that is right.
FAULTS = {
    "crashing": """
ENTRYPOINT ["/bin/sh", "-c", "[ $0 != serve ] && exec /opt/venv/bin/python -m lingbi.launch.entrypoint $0 $@; echo this version is broken >&2; exit 7"]
""",
    "silent": """
ENTRYPOINT ["/bin/sh", "-c", "[ $0 != serve ] && exec /opt/venv/bin/python -m lingbi.launch.entrypoint $0 $@; trap exit TERM; sleep 3600 & wait"]
""",
    # It sees a red circle in every picture: right for the question that makes a server ready, and for no other.
    "wrong": """
USER root
RUN cd /opt/lingbi/lingbi/images && rm __pycache__/loader.*.pyc && test -w loader.py && cat >>loader.py <<'EOS'

_decode = decode


def decode(*arguments):
    from lingbi.worker.probe import PROBE_SCENE
    from lingbi.images.scenes import draw

    _decode(*arguments)
    return draw(PROBE_SCENE)
EOS
USER 10001:10001
""",
}


def build_exporter(prefix: str) -> None:
    """Build PREFIX nginx-exporter:lab: the exporter as Debian has it, since its own image cannot be pulled."""
    text = f"""FROM {ensure_debian()}
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends prometheus-nginx-exporter >/dev/null \\
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 65534
ENTRYPOINT ["prometheus-nginx-exporter"]
"""
    build_text(text, f"{prefix}nginx-exporter:lab")


def build_faulty(prefix: str, version: str, fault: str) -> None:
    """Build PREFIX server:FAULT, which is the version with the fault."""
    text = f"FROM {prefix}server:{version}\n{FAULTS[fault]}"
    build_text(text, f"{prefix}server:{fault}")
