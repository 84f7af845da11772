"""Every setting of the server, declared once: name, type, default, help.

A setting is the environment variable ``LINGBI_<NAME>``. Unknown names and unusable values stop
the program before it does anything, with the name, the value seen and the remedy.
"""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from lingbi.deployment import fault_in, is_another_parts
from lingbi.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "LINGBI_"
ORIGIN = r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:\d+)?"  # as browsers write it: in small letters, without a path


class Settings(BaseSettings):
    """Settings of one server host; see each field's description."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    model: str = Field(
        "auto",
        description="model folder, catalogue name, ModelScope id, demo, or auto: on a GPU the first of the catalogue "
        "that is in LINGBI_MODELS_DIR and fits, else the first that fits, which is fetched; without a GPU the demo; "
        "several with commas, and with the number of their workers, as in vl-7b*3,4khd-7b",
        json_schema_extra={"x-option": "--model"},
    )
    models_dir: Path = Field(Path("models"), description="where catalogue models are looked for")
    fetch: Literal["missing", "never"] = Field(
        "missing", description="what a start does without the weights: fetch them, or stop"
    )
    hub_endpoint: str | None = Field(
        None,
        pattern=r"https?://[^/]+.*",
        description="address of a ModelScope mirror",
        json_schema_extra={"x-default": "ModelScope itself"},
    )
    hub_token_file: Path | None = Field(None, description="file with the ModelScope token, for private models")
    hub_revision: str = Field("master", pattern=r"[\w.-][\w./-]*", description="branch, tag or commit fetched")
    weights_lock: Path | None = Field(
        None,
        description="lock file of the only bytes that are accepted, written by a first fetch; for several models a folder "
        "with NAME.json for each",
    )
    fetch_connections: int = Field(8, ge=1, le=16, description="connections to the hub at once")
    fetch_patience_s: int = Field(300, ge=1, description="longest time without a new byte before a fetch ends")
    engine: Literal["auto", "turbomind", "cpu"] = Field(
        "auto", description="inference engine", json_schema_extra={"x-option": "--engine"}
    )
    prompt_form: Literal["lmdeploy", "published"] = Field(
        "lmdeploy",
        description="how a conversation becomes a prompt: as lmdeploy writes it, or as the published models' own chat()",
    )
    tp: Literal["1", "2", "auto"] = Field(
        "1",
        description="GPUs that hold one copy of a model together (tensor parallel); auto: two where one is too small",
    )
    hd_num: int = Field(
        25,
        ge=1,
        le=55,
        description="most tiles that 4khd-7b cuts a picture into; more show finer details and take more tokens and memory",
    )
    host: str = Field("127.0.0.1", description="address the workers listen on")
    port: int = Field(23333, ge=1, le=65000, description="port of worker 0; worker i adds i")
    state_dir: Path = Field(
        platformdirs.user_state_path("lingbi"),
        description="logs, key, links, process files",
        json_schema_extra={"x-default": ".lingbi beside scripts/; without scripts/, lingbi in the user's state folder"},
    )
    api_key_file: Path | None = Field(
        None,
        description="the operator's own API key in plain",
        json_schema_extra={"x-default": "api-key in the state folder, made when missing"},
    )
    keys_file: Path | None = Field(
        None,
        description="this host's own API keys, named and hashed; the database takes them over",
        json_schema_extra={"x-default": "keys in the state folder"},
    )
    plain_keys_dir: Path | None = Field(
        None, description="folder with further API keys in plain, one a file, named after it; read at a start"
    )
    page_key_file: Path | None = Field(
        None,
        description="the page's own API key in plain",
        json_schema_extra={"x-default": "ui-key in the state folder"},
    )
    workers_file: Path | None = Field(None, description="file in which a container lists its workers for nginx")
    workers_host: str = Field("127.0.0.1", description="address of this container in that list")
    database_url: str | None = Field(
        None,
        description="database of keys, usage and quotas, as in postgresql://USER@HOST:5432/NAME; several hosts share one "
        "(compose.postgres.yaml where HOST is postgres, else compose.database.yaml)",
        json_schema_extra={"x-default": "SQLite, accounts/accounts.db in the state folder"},
    )
    database_password_file: Path | None = Field(None, description="file with the password of LINGBI_DATABASE_URL")
    time_zone: str = Field(
        "UTC", description="time zone by which days and months of usage and quotas begin, as in Asia/Shanghai"
    )
    ledger_spool_mib: int = Field(
        256, ge=16, description="most disk for usage that waits until the database of LINGBI_DATABASE_URL answers, MiB"
    )
    usage_days: int = Field(90, ge=2, description="days for which usage is kept by the hour")
    usage_months: int = Field(36, ge=2, description="months for which usage is kept by day and month")
    quota_when_away: Literal["local", "open", "closed"] = Field(
        "local",
        description="what limits mean while the database is away: each worker goes on by what it knows itself (local), "
        "nothing is limited (open), or keys with limits get 503 (closed)",
    )
    files_dir: Path | None = Field(
        None,
        description="folder with uploaded files, of batches above all; hosts that share a database may share one",
        json_schema_extra={
            "x-default": "files in the state folder; where PostgreSQL is named, the database keeps the files"
        },
    )
    files_mib: int = Field(10240, ge=1, description="most that the uploaded files of one API key may take, MiB")
    files_days: int = Field(30, ge=1, le=3650, description="days after which uploaded files and batches' results go")
    max_file_mib: int = Field(2048, ge=1, description="largest uploaded file, MiB")
    batch_lines: int = Field(100_000, ge=1, description="most lines of a batch")
    key_concurrency: int = Field(
        0, ge=0, description="most requests of one API key at once; 0: all, or its share while other keys ask"
    )
    open_models: bool = Field(False, description="whether /v1/models is answered without a key")
    allowed_origins: str = Field(
        "",
        pattern=rf"^(|\*|{ORIGIN}(,{ORIGIN})*)$",
        description="web origins whose pages may call the API from a browser, as in https://lab.example, with commas; "
        "*: all; empty: none",
    )
    workers: int = Field(0, ge=0, le=64, description="worker processes of one model; 0: one a GPU, one on CPU")
    worker: int = Field(
        0, ge=0, le=63, description="number of this worker, set by supervisor", json_schema_extra={"x-fixed": True}
    )
    placement_file: Path | None = Field(
        None,
        description="file that tells each worker its model, GPU and memory, set by the start",
        json_schema_extra={"x-fixed": True},
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="log level")
    session_len: int | None = Field(
        None,
        ge=256,
        description="most tokens of prompt and answer",
        json_schema_extra={"x-default": "the model's own, or what fits"},
    )
    max_batch_size: int | None = Field(
        None,
        ge=1,
        le=512,
        description="answers generated at once on a GPU",
        json_schema_extra={
            "x-default": "64, fewer where memory is short, 128 where the KV cache holds a picture's chat of each"
        },
    )
    prefill_tokens: int | None = Field(
        None,
        ge=256,
        description="most prompt tokens of one step on a GPU; more stalls running answers and takes memory",
        json_schema_extra={"x-default": "2048, fewer where memory is short"},
    )
    cache_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the GPU memory that the model leaves that holds KV cache",
        json_schema_extra={"x-default": "0.9"},
    )
    quant_policy: Literal["0", "4", "8"] | None = Field(
        None,
        description="KV cache bits: 0 (16), 8 or 4",
        json_schema_extra={"x-default": "0, the others where memory is short"},
    )
    gpu_memory_mib: int | None = Field(
        None,
        ge=1,
        description="most memory that lingbi takes of each GPU, MiB",
        json_schema_extra={"x-default": "all that is free"},
    )
    cpu_threads: int = Field(0, ge=0, description="threads of the CPU engine; 0: all cores")
    cpu_sequences: int = Field(8, ge=1, description="answers generated in turn on the CPU engine")
    cpu_prefill_tokens: int = Field(256, ge=16, description="prompt tokens a turn on the CPU engine")
    on_demand: bool = Field(
        False, description="whether models that share a GPU are loaded when they are asked for, and put away for others"
    )
    models_awake: int = Field(
        1, ge=1, le=16, description="models of a GPU that are loaded at once, on demand; they divide its memory"
    )
    idle_timeout: int = Field(
        0, ge=0, description="seconds without a request after which a model is put away, on demand; 0: never"
    )
    stay_s: int = Field(
        30,
        ge=0,
        description="least time that a model with requests stays loaded while others wait for another, on demand",
    )
    wake_wait_s: int = Field(
        300, ge=1, description="longest wait of a request for its model to be loaded, on demand; then it gets 503"
    )
    load_timeout_s: int = Field(1800, ge=1, description="longest wait for a model to become ready")
    drain_timeout_s: int = Field(60, ge=0, description="longest wait for running answers at the end")

    queue_limit: int = Field(
        64, ge=0, description="requests that may wait for their turn; more get 429, and keys share them"
    )
    max_body_mib: int = Field(64, ge=1, le=1024, description="largest request, MiB")
    bodies_mib: int = Field(
        1024,
        ge=1,
        description="most memory for the bodies of all requests under way, MiB; keys share it, and two of the largest fit",
    )
    body_timeout_s: int = Field(30, ge=1, description="longest wait for a request's body")
    max_pictures: int = Field(16, ge=1, description="most pictures in a request")
    max_picture_mib: int = Field(20, ge=1, le=512, description="largest picture file, MiB")
    max_picture_mpixels: int = Field(50, ge=1, le=1000, description="most million pixels in a request's pictures")
    picture_urls: bool = Field(
        True,
        description="whether pictures are fetched from http(s) URLs; in containers false, unless "
        "compose.picture-urls.yaml gives the server a way out",
    )
    picture_hosts: str = Field("", description="hosts that pictures are fetched from, with commas; empty: all public")
    picture_networks: str = Field(
        "", description="networks (CIDR, with commas) that pictures are fetched from though they are not public"
    )
    picture_fetch_timeout_s: int = Field(10, ge=1, description="longest fetch of a picture")
    picture_cache_mib: int = Field(
        1024,
        ge=0,
        description="host memory for what the vision tower made of pictures seen before, MiB; "
        "taken at the start on a GPU; 0: none",
    )
    kept_sessions: int = Field(
        32, ge=0, description="sessions that stay in the GPU's KV cache for who goes on or asks the same; 0: none"
    )
    cpu_kept_sessions: int = Field(4, ge=0, description="the same in the CPU engine's memory; 0: none")
    watchdog_interval_s: int = Field(30, ge=1, description="idle time after which the watchdog asks a picture question")
    watchdog_timeout_s: int = Field(
        120,
        ge=1,
        description="longest time that encoder or model may stand still with work before the worker is replaced",
    )

    def key_file(self) -> Path:
        """The file with the operator's own API key."""
        return self.api_key_file or self.state_dir / "api-key"

    def hashed_key_file(self) -> Path:
        """The file with all API keys, hashed."""
        return self.keys_file or self.state_dir / "keys"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; ``overrides`` (field names) win.

    Raises ConfigurationError that names the setting, the value seen and the remedy.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {key for key in os.environ if key.startswith(PREFIX) and not is_another_parts(key)}
    unknown = sorted(given - known)
    if unknown:
        name = unknown[0]
        raise ConfigurationError(f"{name}={os.environ[name]!r}: there is no such setting; {remedy(name, known)}")
    if fault := fault_in(os.environ):
        raise ConfigurationError(fault)
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(item) for item in error.errors())) from None


def remedy(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not a known setting."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def _sentence(item: "ErrorDetails") -> str:
    name = str(item["loc"][0])
    return f"{PREFIX}{name.upper()}={item['input']!r}: {item['msg'].lower()} ({meaning(name)})"


def meaning(name: str) -> str:
    """What the setting of a field is for, and what it is where nobody sets it and the machine or the model decides."""
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    default = extra.get("x-default") if isinstance(extra, dict) else None
    return f"{field.description}; default: {default}" if default else str(field.description)
