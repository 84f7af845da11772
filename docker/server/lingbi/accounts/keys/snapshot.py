"""A host's own copy of the keys, which serves while the database is away, also at a start. It holds digests only."""

import json
import logging
import os
import tempfile
from pathlib import Path

from lingbi.accounts.keys.records import Records, from_data, to_data

log = logging.getLogger(__name__)


def write_snapshot(file: Path, records: Records) -> None:
    """Replace the copy in one step, readable for its owner alone; what hinders that is logged, for the keys are known."""
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(to_data(records), stream)
        os.replace(name, file)
    except OSError as error:
        log.error("the copy of the keys, %s, cannot be written: %s; it stays as it was", file, error.strerror)


def read_snapshot(file: Path) -> Records:
    """The copy; an empty one where there is none, or none that can be read."""
    try:
        return from_data(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Records()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.error(
            "the copy of the keys, %s, cannot be used: %s; it is written anew when the database answers", file, error
        )
        return Records()
