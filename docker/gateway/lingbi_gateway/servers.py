"""The list of servers: who is in it, and which model each of them serves."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lingbi_gateway.settings import ConfigurationError

LINE = re.compile(r"\s*server\s+(?P<address>[^\s;#]+)(?P<options>[^;#]*);\s*(?:#(?P<comment>.*))?")
MODEL = re.compile(r"(?:^|\s)model=(\S+)")


@dataclass(frozen=True)
class Server:
    """A line of the list. options: nginx's own parameters; model: what it serves, empty where the line does not say."""

    address: str
    options: tuple[str, ...] = ()
    model: str = ""

    @property
    def is_down(self) -> bool:
        """Whether it is being drained: it gets no new requests."""
        return "down" in self.options

    def directive(self) -> str:
        """The line for nginx; a word of the comment names the model."""
        line = " ".join(("server", self.address, *self.options)) + ";"
        return f"{line} # model={self.model}" if self.model else line


def parse(text: str) -> tuple[Server, ...]:
    """The servers of a list, in its order. Other lines are nginx's to judge."""
    found = filter(None, map(LINE.match, text.splitlines()))
    return tuple(
        Server(line["address"], tuple(line["options"].split()), _model(line["comment"] or "")) for line in found
    )


def _model(comment: str) -> str:
    found = MODEL.search(comment)
    return found[1] if found else ""


def given(word: str) -> Server:
    """A server as the setting spells it: HOST:PORT, or MODEL=HOST:PORT."""
    model, _, address = word.rpartition("=")
    return Server(address, model=model)


def by_model(servers: Iterable[Server]) -> dict[str, tuple[Server, ...]]:
    """{model: its servers}, in the order of the list; empty where no line names a model.

    Raises ConfigurationError where some lines name one and others do not.
    """
    found: dict[str, list[Server]] = {}
    for server in servers:
        found.setdefault(server.model, []).append(server)
    nameless = found.pop("", [])
    if found and nameless:
        listed = ", ".join(server.address for server in nameless)
        raise ConfigurationError(
            f"the list of servers names no model for {listed}, but it does for others; "
            "name it for every server, as in `server 10.0.0.5:23333; # model=vl-7b`, or for none"
        )
    return {model: tuple(group) for model, group in found.items()}
