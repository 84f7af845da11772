"""The exceptions that end a command, each with its exit status."""


class LingbiError(Exception):
    """A failure with a message for people: what, where, the value seen, the remedy."""

    exit_status = 1


class CheckError(LingbiError):
    """A check failed."""


class ConfigurationError(LingbiError):
    """A setting, option or model folder cannot be used."""

    exit_status = 2


class StartError(LingbiError):
    """The configuration is sound, but the server did not come up."""

    exit_status = 3


class StopError(LingbiError):
    """What runs could not be ended."""


class FetchError(StartError):
    """The weights could not be fetched: the hub, the network or the disk stopped it."""
