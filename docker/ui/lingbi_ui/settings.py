"""Every setting of the page, declared once: name, type, default, help.

A setting is the environment variable ``LINGBI_UI_<NAME>``. Unknown names and unusable values stop
the program before it does anything, with the name, the value seen and the remedy.
"""

import difflib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from lingbi_ui import PORT

PREFIX = "LINGBI_UI_"


class ConfigurationError(Exception):
    """A setting is unknown or unusable; says which, the value seen and the remedy."""

    exit_status = 2


class Settings(BaseModel):
    """Settings of one page server; see each field's description."""

    model_config = ConfigDict(frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(PORT, ge=1, le=65535, description="port to listen on")
    api_url: str = Field(
        "http://127.0.0.1:6007", pattern=r"https?://[^/]+", description="where /v1 and /ready are, without a path"
    )
    api_key_file: Path | None = Field(None, description="file with the page's own API key in its first line")
    login_file: Path | None = Field(None, description="names and password hashes (scripts/login); none: no login")
    files_dir: Path = Field(
        Path(tempfile.gettempdir()) / "lingbi-ui",
        description="where uploaded pictures are kept for a while",
        json_schema_extra={"x-default": "lingbi-ui in the temporary folder"},
    )
    keep_files_h: int = Field(24, ge=1, description="hours that uploaded pictures are kept")
    login_files_mib: int = Field(512, ge=1, description="most MiB of uploaded pictures of one login")
    address_files_mib: int = Field(
        2048, ge=1, description="most MiB of uploaded pictures of one address, where nobody logs in"
    )
    all_files_mib: int = Field(8192, ge=1, description="most MiB of uploaded pictures of all visitors")
    min_free_mib: int = Field(512, ge=0, description="MiB on the disk that uploads leave free")
    login_h: int = Field(12, ge=1, description="hours until a login has to be repeated")
    login_questions: int = Field(8, ge=1, description="most questions of one login at a time, answers included")
    address_questions: int = Field(
        96, ge=1, description="most questions of one address at a time, where nobody logs in; a class may share one"
    )
    all_questions: int = Field(320, ge=1, description="most questions of all visitors at a time")
    max_pictures: int = Field(16, ge=1, description="most pictures in a conversation")
    max_picture_mib: int = Field(20, ge=1, le=512, description="largest picture file, MiB")
    answers_at_once: int = Field(64, ge=1, description="answers shown at once; more wait")
    answer_timeout_s: int = Field(600, ge=1, description="longest silence within an answer")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="log level")

    @field_validator("api_key_file", "login_file", "files_dir")
    @classmethod
    def _whole_path(cls, path: Path | None) -> Path | None:
        """Make paths absolute, because the page leaves the folder in which it was started."""
        return path and path.absolute()

    def api_key(self) -> str:
        """The page's API key; read anew each time, so that it can be replaced. Raises ConfigurationError."""
        if self.api_key_file is None:
            return ""
        try:
            return self.api_key_file.read_text().split()[0]
        except (OSError, IndexError) as error:
            raise ConfigurationError(
                f"{PREFIX}API_KEY_FILE={str(self.api_key_file)!r}: no key can be read ({error}); "
                "make one with `scripts/key add` and write it there"
            ) from None


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ConfigurationError that names the setting, the value seen and the remedy."""
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    given = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
    for key in sorted(given.keys() - known.keys()):
        raise ConfigurationError(f"{key}={given[key]!r}: there is no such setting; {remedy(key, known)}")
    try:
        return Settings(**{known[key]: value for key, value in given.items()})
    except ValidationError as error:
        raise ConfigurationError("; ".join(map(_sentence, error.errors()))) from None


def remedy(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not a known setting."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def _sentence(item: ErrorDetails) -> str:
    name = str(item["loc"][0])
    help_text = Settings.model_fields[name].description
    return f"{PREFIX}{name.upper()}={item['input']!r}: {item['msg'].lower()} ({help_text})"
