"""Logs as JSON: one line for each event and one for each request, with its id but never a key or the question."""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
requests = logging.getLogger("lingbi.requests")


def configure(level: str) -> None:
    """Send everything that Python logs to standard error as JSON lines."""
    logging.basicConfig(level=level, handlers=[_handler()], force=True)
    # lmdeploy silences the root's handlers when it makes its own logger.
    for name in ("lingbi", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_handler()], False
    # These libraries repeat what lingbi logs, or log whole URLs.
    for name in ("httpx", "httpcore", "PIL", "alembic", "asyncio"):
        logging.getLogger(name).setLevel("WARNING")


def adopt(logger: logging.Logger) -> None:
    """Make a logger that has its own handlers write JSON lines too."""
    for handler in logger.handlers:
        handler.setFormatter(_formatter())


@contextlib.contextmanager
def remote_code_logged(logger: logging.Logger) -> Iterator[None]:
    """Within the block, output and warnings of a model folder's own code become DEBUG lines of this logger."""
    with contextlib.redirect_stdout(_Lines(logger)), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: logger.debug("%s", message)
        level = transformers_level("ERROR")
        try:
            yield
        finally:
            transformers_level(level)


class _Lines(io.TextIOBase):
    """A text stream whose lines go to a logger."""

    def __init__(self, logger: logging.Logger):
        self._logger = logger

    def write(self, text: str) -> int:
        for line in filter(None, map(str.strip, text.splitlines())):
            self._logger.debug("%s", line)
        return len(text)


def transformers_level(level: int | str) -> int:
    """Set the level of the transformers logger, and return its previous level."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(level)
    return before


def _handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    return handler


def _formatter() -> logging.Formatter:
    left_out = (*RESERVED_ATTRS, "color_message")
    return JsonFormatter(FORMAT, datefmt=TIME, rename_fields=NAMES, json_ensure_ascii=False, reserved_attrs=left_out)


def readable(line: str) -> str:
    """A log line in a form for people; a line that is not JSON stays as it is."""
    try:
        event = json.loads(line)
        rest = event.get("exc_info", "")
        return f"{event['time']} {event['level']} {event['logger']}: {event['message']}" + (f"\n{rest}" if rest else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
