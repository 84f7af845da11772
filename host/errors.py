"""The failures of these commands, each with its exit status."""


class Refusal(Exception):
    """Something is not as it must be; nothing was changed. Says what was seen and the remedy."""

    exit_status = 2


class StartFailed(Exception):
    """All was right, and the containers did not come up."""

    exit_status = 3
