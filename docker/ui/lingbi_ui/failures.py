"""What failed questions leave in the log: a line each, and a traceback once for each place in this page's own code.

Gradio prints a traceback for every one of them, and a visitor can have as many fail as there are questions.
"""

import logging
import sys
import traceback
from pathlib import Path

from gradio import queueing, routes

OWN = Path(__file__).parent
log = logging.getLogger("uvicorn.error")


class Failures:
    """In the place of the module `traceback`, of which Gradio uses only `print_exc` where a question has failed."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def print_exc(self) -> None:
        """Tell of the exception that is being handled, without its words, which may be a visitor's."""
        error = sys.exc_info()[1]
        frames = traceback.extract_tb(error.__traceback__) if error else []
        own = [frame for frame in frames if OWN in Path(frame.filename).parents]
        places = [f"{Path(frame.filename).name}, line {frame.lineno}" for frame in own or frames]
        what = f"a question failed with {type(error).__name__} in {places[-1] if places else 'an unknown place'}"
        if own and what not in self.told:
            self.told.add(what)
            log.error("%s; the traceback is shown this once", what, exc_info=error)
        else:
            log.error("%s", what)


def tell_failures_in_lines() -> None:
    """Have Gradio tell of failed questions in this way."""
    failures = Failures()
    for module in (queueing, routes):
        module.traceback = failures
