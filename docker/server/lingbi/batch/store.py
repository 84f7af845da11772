"""Everything that files and batches need, in one place, and what they may take."""

from __future__ import annotations

from dataclasses import dataclass

from lingbi.accounts.database import Database
from lingbi.batch.storage import Folder, Parts, Storage
from lingbi.settings import Settings

MIB, DAY_S = 1 << 20, 86400.0


@dataclass(frozen=True)
class Rules:
    """file_bytes: largest file; owner_bytes: all stored files of a key; life_s: of a file, seconds; lines: of a batch;
    line_bytes: largest line."""

    file_bytes: int
    owner_bytes: int
    life_s: float
    lines: int
    line_bytes: int


@dataclass(frozen=True)
class Store:
    """The database, the contents of files, and the rules for both."""

    database: Database
    storage: Storage
    rules: Rules


def store_of(settings: Settings, database: Database) -> Store:
    """The store that follows from the settings: hosts that share a database share files in it, unless a folder is named."""
    rules = Rules(
        settings.max_file_mib * MIB,
        settings.files_mib * MIB,
        settings.files_days * DAY_S,
        settings.batch_lines,
        settings.max_body_mib * MIB,
    )
    if settings.files_dir is None and not database.is_sqlite:
        return Store(database, Parts(database), rules)
    return Store(database, Folder(settings.files_dir or settings.state_dir / "files"), rules)
