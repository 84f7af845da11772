"""Keeps Gradio from doing for visitors what this page must not do.

Gradio reads the machine's files and fetches from elsewhere for whoever asks a mounted page in the right words
(`_check_allowed` in gradio/processing_utils.py protects only pages that were launched). Which of its routes there are
stands in guard/routes.py.
"""

import os
import tempfile
from pathlib import Path

from gradio import Blocks, processing_utils
from gradio.exceptions import InvalidPathError

from lingbi_ui.settings import Settings


def fence(blocks: Blocks) -> None:
    """Have Gradio check every path that a browser names, and fetch nothing for it."""
    blocks.has_launched = blocks.is_running = True
    processing_utils.async_ssrf_protected_download = _refuse_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = _refuse


def settle(settings: Settings) -> None:
    """Make one empty folder both the working and the temporary one, because Gradio serves files from both."""
    nothing = settings.files_dir / "nothing"
    nothing.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.files_dir)
    os.chdir(nothing)
    tempfile.tempdir = str(nothing)


def is_uploaded(file: Path, settings: Settings) -> bool:
    """Whether a path that a browser named is in the folder of uploads."""
    return file.resolve().is_relative_to(settings.files_dir.resolve())


def _refuse(url: str, cache_dir: str) -> str:
    raise InvalidPathError(f"this page fetches nothing: {url[:100]!r}")


async def _refuse_later(url: str, cache_dir: str) -> str:
    return _refuse(url, cache_dir)
