"""Logs as JSON, one line an event, and one line a request: an id, never a key, never what was asked."""

import json
import logging
import logging.config
import re

from pythonjsonlogger.jsonlogger import JsonFormatter

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}
requests = logging.getLogger("lingbi.requests")


def configure(level: str) -> None:
    """Send everything that Python logs to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(FORMAT, datefmt=TIME, rename_fields=NAMES, json_ensure_ascii=False))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Their lines repeat ours, or hold whole URLs.
    for name in ("httpx", "httpcore", "PIL", "asyncio"):
        logging.getLogger(name).setLevel("WARNING")


def readable(line: str) -> str:
    """A log line for people; what is no JSON stays as it is."""
    try:
        event = json.loads(line)
        rest = event.get("exc_info", "")
        return f"{event['time']} {event['level']} {event['logger']}: {event['message']}" + (f"\n{rest}" if rest else "")
    except (ValueError, KeyError, TypeError):
        return line


REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
