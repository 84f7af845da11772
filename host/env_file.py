"""The .env beside compose.yaml: written with descriptions, read, changed, and checked against the known settings."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from host.errors import Refusal
from host.schema import declared, default_of, fits, remedy

ROOT = Path(__file__).resolve().parents[1]
PREFIX_FILE = ROOT / "IMAGE_PREFIX"  # in a bundle: the prefix of its images' names
LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# Only values that this program and Compose read alike: no $ to expand, and nothing escaped.
VALUE = re.compile(r"""'(?P<single>[^']*)'(\s+\#.*)?|"(?P<double>[^"$\\]*)"(\s+\#.*)?|(?P<bare>[^'"$][^$]*|)""")
PLAIN = re.compile(r"[A-Za-z0-9_./:@,+=%^~*-]*")
OF_OTHERS = re.compile(r"COMPOSE_[A-Z_]+|DOCKER_[A-Z_]+|TZ|(?i:https?|no|all)_proxy")
SECRET = re.compile(r"(KEY|TOKEN|PASSWORD|PASSWD|SECRET)(?!.*_(FILE|DIR|FOLDER)$)")
LOOKS_SECRET = re.compile(r"(lb-|ms-|sk-)[A-Za-z0-9_-]{16,}")
CPU, SECRETS, PICTURES = "compose.cpu.yaml", "compose.secrets.yaml", "compose.picture-urls.yaml"
POSTGRES, DATABASE = "compose.postgres.yaml", "compose.database.yaml"  # beside the server, and elsewhere
OFF = ("", "false", "0", "no", "off", "n", "f")  # as pydantic reads a switch
WHOLE = ("LINGBI_DRAIN_TIMEOUT_S", "LINGBI_WORKERS", "LINGBI_LOAD_TIMEOUT_S")


def known_names() -> set[str]:
    """Every setting that .env may contain."""
    return {setting.name for setting in declared() if not setting.is_fixed}


def parse(text: str, where: str = ".env") -> dict[str, str]:
    """The values of a file's text, as Compose reads them. Raises Refusal with the number of an invalid line."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise Refusal(f"{where} line {number}: {line[:60]!r} is not NAME=VALUE; correct it, or begin it with #")
        if match[1] in values:
            raise Refusal(f"{where} line {number}: {match[1]} stands there twice; remove one")
        value = VALUE.fullmatch(match[2].strip())
        if not value:
            raise Refusal(f"{where} line {number}: {match[1]} has quotes or a $ that are special; put '…' around it")
        bare = re.sub(r"(^|\s+)#.*", "", value["bare"] or "")
        values[match[1]] = value["single"] or value["double"] or bare
    return values


def quoted(value: str) -> str:
    """A value quoted in such a way that it is read back unchanged."""
    if PLAIN.fullmatch(value):
        return value
    written = f"'{value}'" if "'" not in value else f'"{value}"'
    if "\n" in value or not VALUE.fullmatch(written):
        raise Refusal(f"{value!r} cannot stand in .env; rename it, without quotes, $ and \\")
    return written


def check(values: dict[str, str], known: set[str]) -> None:
    """Raise Refusal for an unknown name, a secret, an image without a version, or an invalid number."""
    for name, value in values.items():
        if SECRET.search(name) and name not in known or LOOKS_SECRET.fullmatch(value):
            raise Refusal(f"{name} in .env looks like a secret; put it into a file under secrets/ and name the file")
        if name not in known and not OF_OTHERS.fullmatch(name):
            raise Refusal(f"{name}={value!r} in .env: there is no such setting; {remedy(name, known)}")
    version = values.get("LINGBI_VERSION", "")
    if not fits("LINGBI_VERSION", version):
        raise Refusal(f"LINGBI_VERSION={version!r} in .env: give a version, as in 1.2.0; `latest` says nothing")
    for name in WHOLE:
        whole(values, name)
    check_together(values)


def whole(values: dict[str, str], name: str) -> int:
    """A setting that is a whole number; its default if it is not set. Raises Refusal."""
    value = values.get(name) or default_of(name)
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise Refusal(f"{name}={value!r} in .env: give a whole number")
    return int(value)


def check_together(values: dict[str, str]) -> None:
    """Raise Refusal where two settings contradict each other."""
    drain, grace = whole(values, "LINGBI_DRAIN_TIMEOUT_S"), values.get("LINGBI_STOP_GRACE", "")
    if not re.fullmatch(r"[0-9]+s", grace) or int(grace[:-1]) <= drain + 15:
        raise Refusal(f"LINGBI_STOP_GRACE={grace!r} in .env: give more than {drain + 15}s, or answers are cut off")


def overrides_of(values: dict[str, str]) -> dict[str, str]:
    """{compose file: the setting that needs it}."""
    asks = {
        "LINGBI_GPU_IDS": "compose.gpu-ids.yaml",
        "LINGBI_MODEL_FOLDER": "compose.model-folder.yaml",
        "LINGBI_SERVER_ADDRESS": "compose.model-host.yaml",
        "LINGBI_TLS_FOLDER": "compose.tls.yaml",
        "LINGBI_SERVERS_FOLDER": "compose.servers-folder.yaml",
        "LINGBI_PICTURE_URLS": PICTURES,
    }
    found = {file: name for name, file in asks.items() if values.get(name, "").lower() not in OFF}
    database = database_file(values.get("LINGBI_DATABASE_URL", ""))
    return {**found, database: "LINGBI_DATABASE_URL"} if database else found


def database_file(url: str) -> str:
    """The override for a database: the stack's own PostgreSQL has the service's name as its host; "" for SQLite."""
    found = re.fullmatch(r"postgres(?:ql)?(?:\+\w+)?://(?:[^@/]*@)?(?P<host>[^:/?]*).*", url)
    return "" if not found else POSTGRES if found["host"] == "postgres" else DATABASE


def compose_files(values: dict[str, str], has_gpus: bool, has_secrets: bool, kept: str = "") -> str:
    """COMPOSE_FILE for these values: the files that settings and keys in files need, and those that the user added.

    A file whose setting has no value is left out; PICTURES stays where no line of .env decides.
    """
    asked = set(overrides_of(values)) | (set() if has_gpus else {CPU}) | ({SECRETS} if has_secrets else set())
    ours = {"compose.yaml", CPU, SECRETS, POSTGRES, DATABASE, *overrides_of({name: "x" for name in known_names()})}
    ours -= set() if "LINGBI_PICTURE_URLS" in values else {PICTURES}
    chosen = [file for file in kept.split(":") if file and file not in ours]
    return ":".join(["compose.yaml", *sorted(asked), *chosen])


def render(values: dict[str, str]) -> str:
    """The text of a new .env: each value with its description, then the settings without a value as comments."""
    machine = declared("deployment")
    helps = {setting.name: setting.help for setting in machine}
    helps["COMPOSE_FILE"] = (
        "the files that make up the stack: scripts/up adds and removes those that values below name in brackets; "
        "where you use docker compose alone, do it yourself"
    )
    helps["LINGBI_GATEWAY_SERVERS"] = (
        "the workers behind the gateway, HOST:PORT with commas; none: those that the server lists"
    )
    helps["LINGBI_GATEWAY_PORT"] = "port on which the gateway is published"
    helps["LINGBI_MODEL"] = "which model is served (scripts/plan)"
    lines = ["# Written by scripts/up, then yours. Every setting of docs/settings.md may stand here; secrets may not."]
    for name, value in values.items():
        lines += ([f"# {helps[name]}"] if name in helps else []) + [f"{name}={quoted(value)}"]
    lines += [f"# {setting.name}=    {setting.help}" for setting in machine if setting.name not in values]
    return "\n".join(lines) + "\n"


def changed(text: str, changes: dict[str, str]) -> str:
    """The text with some values replaced or added; everything else stays as it is."""
    left = {name: quoted(str(value)) for name, value in changes.items()}
    lines: list[str] = []
    for line in text.splitlines():
        match = LINE.fullmatch(line.strip())
        lines.append(f"{match[1]}={left.pop(match[1])}" if match and match[1] in left else line)
    return "\n".join([*lines, *(f"{name}={value}" for name, value in left.items())]) + "\n"


def write(file: Path, text: str) -> None:
    """Replace a file in one step, for its owner only."""
    descriptor, name = tempfile.mkstemp(dir=str(file.parent), prefix=".env.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(name, str(file))


def private_folder(folder: Path) -> None:
    """Make a folder for secrets, or close one that others can enter. Raises Refusal if it belongs to somebody else."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = folder.stat().st_mode & 0o777
    if not mode & 0o007:
        return
    try:
        folder.chmod(0o700)
    except PermissionError:
        raise Refusal(
            f"{folder} has mode {mode:04o}, so everybody on this machine could read the keys in it, and belongs to "
            f"user {folder.stat().st_uid}; run: sudo chmod 700 {folder}"
        ) from None
