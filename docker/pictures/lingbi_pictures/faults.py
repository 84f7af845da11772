"""Why a picture is refused: a word and facts, of which each part makes its own sentences."""


class PictureFault(Exception):
    """A picture that is not taken.

    reason: format, broken, pixels, aspect, frames, scans, segments, metadata, coding or work; facts: what was seen, by
    the names that the sentences use.
    """

    def __init__(self, reason: str, **facts: object) -> None:
        super().__init__(reason)
        self.reason, self.facts = reason, facts
