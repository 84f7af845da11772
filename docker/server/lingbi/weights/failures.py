"""What can go wrong while bytes come in."""

from lingbi.errors import ConfigurationError, FetchError


class HubFailure(FetchError):
    """The hub or the way to it failed; asking again may help. retry_after_s: what the hub asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HubRefusal(ConfigurationError):
    """The hub understood and said no: unknown, private, or not allowed. Asking again does not help."""


class Stopped(FetchError):
    """The fetch was ended because another part of it failed."""
