"""Ends an answer at a stop word, wherever the word falls between tokens."""

from collections.abc import Iterable


class StopWords:
    """Passes text on until a stop word comes; holds back what may become one."""

    def __init__(self, words: Iterable[str] = ()):
        self.words = tuple(word for word in words if word)
        self.held = ""

    def feed(self, text: str, is_last: bool = False) -> tuple[str, bool]:
        """(text that may be shown, whether a stop word came); the word itself is never shown."""
        if not self.words:
            return text, False
        self.held += text
        found = [place for place in map(self.held.find, self.words) if place >= 0]
        if found:
            shown, self.held = self.held[: min(found)], ""
            return shown, True
        keep = 0 if is_last else self._longest_beginning()
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown, False

    def _longest_beginning(self) -> int:
        """Length of the longest end of the text that a stop word begins with."""
        longest = min(len(self.held), max(map(len, self.words)) - 1)
        ends = (
            size
            for size in range(longest, 0, -1)
            if self.held.endswith(tuple(w[:size] for w in self.words if len(w) > size))
        )
        return next(ends, 0)
