"""The vision tower of a model that is not loaded, kept in host memory, so that loading the model need not make it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lingbi.garbage import uncollected
from lingbi.logs import remote_code_logged
from lingbi.model.folder import ModelFolder

if TYPE_CHECKING:
    import torch

log = logging.getLogger("lingbi.worker")
Stamp = tuple[tuple[str, int, int], ...]


class TowerAhead:
    """A folder's vision tower as `load_tower` returns it: half precision, 0.6 GB in the published models.

    links_dir: where the folder's link is made (ModelFolder.link_in).
    """

    def __init__(self, links_dir: Path) -> None:
        self.links_dir = links_dir
        self._made: tuple[Stamp, torch.nn.Module] | None = None

    def make(self, folder: ModelFolder) -> None:
        """Make it. Raises what load_tower raises."""
        with uncollected():
            from lingbi.vision.tower_loading import load_tower

        began, stamp = time.monotonic(), stamp_of(folder.path)
        with remote_code_logged(logging.getLogger("lingbi.remote_code")):
            tower = load_tower(os.fspath(folder.link_in(self.links_dir)))
        self._made = stamp, tower
        log.info("the vision tower is in host memory, after %.1f s", time.monotonic() - began)

    def take(self, folder: ModelFolder) -> torch.nn.Module | None:
        """Hand it over, once; None where there is none or the folder has changed since."""
        made, self._made = self._made, None
        return made[1] if made and made[0] == stamp_of(folder.path) else None


def stamp_of(folder: Path) -> Stamp:
    """What changes when a file of a folder does: names, sizes, and times of the last change in ns."""
    found = sorted((entry.name, entry.stat()) for entry in os.scandir(folder) if entry.is_file())
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)
