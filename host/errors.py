"""The failures of these commands, each with its exit status."""


class Refusal(Exception):
    """A precondition does not hold, and nothing was changed. The message says what was seen and gives the remedy."""

    exit_status = 2


class StartFailed(Exception):
    """All preconditions held, but the containers did not come up."""

    exit_status = 3
