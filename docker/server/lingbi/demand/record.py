"""What a worker's wakes took, kept in a file: each of its processes sees only one."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lingbi.files import write_text

log = logging.getLogger(__name__)
UNKNOWN_S = 20.0  # the seconds of a wake before one was measured


@dataclass
class Counts:
    """wakes: how often the model was loaded; swaps: how often another one was put away for it; put_away: how often it was,
    by why; seconds: of all wakes, by part; last: of the last one."""

    wakes: int = 0
    swaps: int = 0
    put_away: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    @property
    def last_s(self) -> float:
        """Seconds that the last wake took, from the first request to the model's being ready."""
        return sum(self.last.values()) if self.last else UNKNOWN_S


class Record:
    """The counts of one worker. No two of its processes write at once: a model that goes writes before the next one is
    told to wake."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> Counts:
        """The counts so far; zero where the file is missing or unusable."""
        try:
            return Counts(**json.loads(self.file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Counts()
        except (OSError, ValueError, TypeError) as error:
            log.warning("the record of wakes %s is unusable and begins anew: %r", self.file, error)
            return Counts()

    def count_wake(self, parts: dict[str, float], is_swap: bool) -> None:
        """Add a wake with the seconds of its parts."""
        counts = self.read()
        counts.wakes, counts.swaps, counts.last = counts.wakes + 1, counts.swaps + is_swap, parts
        for part, seconds in parts.items():
            counts.seconds[part] = round(counts.seconds.get(part, 0.0) + seconds, 3)
        write_text(self.file, json.dumps(asdict(counts)))

    def count_put_away(self, why: str) -> None:
        """Add that the model is put away."""
        counts = self.read()
        counts.put_away[why] = counts.put_away.get(why, 0) + 1
        write_text(self.file, json.dumps(asdict(counts)))
