"""How lingbi was started last, so that a service and a restored backup can be started alike; and how what was started is called."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from lingbi.deployment import NAMES
from lingbi.files import write_text
from lingbi.http.readiness import PROBE_QUESTION, probe_messages
from lingbi.images import scenes
from lingbi.settings import PREFIX

PLACES = {f"{PREFIX}{name}" for name in ("STATE_DIR", "MODELS_DIR")}  # the scripts set them, for each folder anew


def start_file(state_dir: Path) -> Path:
    """The settings of the environment and the command line of the last start, as JSON."""
    return state_dir / "start.json"


def given_start(arguments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """(settings of the environment, arguments) of a start as it is written down."""
    left_out = PLACES | NAMES
    settings = {key: value for key, value in os.environ.items() if key.startswith(PREFIX) and key not in left_out}
    return dict(sorted(settings.items())), [argument for argument in arguments if argument != "--json"]


def write_start(state_dir: Path, program: str, arguments: Iterable[str]) -> None:
    settings, given = given_start(arguments)
    text = json.dumps({"program": program, "settings": settings, "arguments": given}, indent=1)
    write_text(start_file(state_dir), text + "\n")


def read_start(state_dir: Path) -> tuple[dict[str, str], list[str]]:
    """(settings, arguments); both empty where it is not known."""
    try:
        found = json.loads(start_file(state_dir).read_text(encoding="utf-8"))
        return found["settings"], found["arguments"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}, []


def line(program: str, settings: Mapping[str, str], arguments: Iterable[str]) -> str:
    """A shell line that starts a program in the same way."""
    words = [shlex.quote(f"{key}={value}") for key, value in settings.items()]
    return " ".join([*words, program, *map(shlex.quote, arguments)])


def how_to_call(report: dict[str, Any], is_alone: bool) -> str:
    file = Path(report["api_key_file"])
    key = file.read_text().split()[0] if file.exists() else "YOUR_KEY"
    took = f" after {report['seconds']} s" if report["seconds"] is not None else ""
    return "\n".join(
        [
            "",
            f"lingbi is up{took}.",
            *([] if is_alone else [f"  page     {report['url']}", f"  keys     {report['url']}/admin"]),
            f"  API      {report['url']}/v1",
            f"  API key  {key}   (in {report['api_key_file']})",
            f"  model    {', '.join(report.get('models', [report['model']]))} on {report['engine']}",
            "Ask it about a picture (paste this line):",
            "",
            curl_line(report["url"], key, report["model"], report.get("ca_file")),
            "",
            "scripts/smoke checks it, scripts/down ends it.",
        ]
    )


def curl_line(url: str, key: str, model: str, ca_file: str | None = None) -> str:
    """A command that asks about a small drawn picture and works when pasted."""
    scene = scenes.Scene((scenes.Thing("blue", "star", size=0.8),), width=64, height=64)
    image = scenes.draw(scene).quantize(16)
    body = {"model": model, "messages": probe_messages(image, PROBE_QUESTION)}
    words = ["curl", "-s", f"{url}/v1/chat/completions", "-H", f"Authorization: Bearer {key}"]
    words += ["--cacert", ca_file] if ca_file else []
    words += ["--noproxy", "*"] if getproxies() else []  # for a proxy, this address may be another machine
    words += ["-H", "Content-Type: application/json", "-d", json.dumps(body, ensure_ascii=False)]
    return shlex.join(words)
