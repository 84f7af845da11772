"""Which upstream a request is for. Everything here is pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "default"  # the alias for requests that name no model
SHOWN = 100  # characters of a name in a sentence
ROUTED, ROUTED_IMPATIENT = "@routed", "@routed_impatient"  # nginx's locations for what was routed


@dataclass(frozen=True)
class Model:
    """A model and its upstream. servers: HOST:PORT of those that take requests; drained: of those that take none."""

    pool: str
    servers: tuple[str, ...]
    drained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routes:
    """models: by their names; none where there is one model; only: that one; aliases: {alias: model}; places: whether
    conversations keep their servers."""

    models: Mapping[str, Model] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    only: Model | None = None
    places: bool = False

    @classmethod
    def of(cls, told: dict[str, Any] | None) -> "Routes":
        """Of what routes.json says; None where nothing is routed."""
        if told is None:
            return cls()
        models = {
            name: Model(model["pool"], tuple(model["servers"]), tuple(model["drained"]))
            for name, model in told["models"].items()
        }
        only = models.pop("", None)
        return cls(models, told["aliases"], only, told["places"])

    @property
    def servers(self) -> set[str]:
        """All that take requests."""
        models = [*self.models.values(), *([self.only] if self.only else [])]
        return {server for model in models for server in model.servers}

    def of_pool(self, pool: str) -> Model | None:
        """The model with this upstream."""
        return self.only if not pool else next((model for model in self.models.values() if model.pool == pool), None)


@dataclass(frozen=True)
class Routed:
    """Where nginx passes a request. pool: its upstream, empty for any server; model: the name that the server reads in
    place of the one in the body, empty where that one stays; server: the one chosen among the upstream's, empty where
    nginx chooses."""

    pool: str = ""
    model: str = ""
    server: str = ""


@dataclass(frozen=True)
class Refused:
    """A request that no server can answer."""

    status: int
    code: str
    message: str

    def body(self) -> bytes:
        """The error in the OpenAI form."""
        error = {"message": self.message, "type": "invalid_request_error", "param": "model", "code": self.code}
        return json.dumps({"error": error}).encode()


UNREAD = Routed()


def decide(routes: Routes, asked: Any) -> Routed | Refused:
    """Where a request goes. asked: its JSON; what is no object goes to any server, which refuses it in its own words."""
    if not isinstance(asked, dict):
        return UNREAD
    name = asked.get("model")
    if name is None or name == "":
        name = DEFAULT if DEFAULT in routes.aliases else None
    if not isinstance(name, str):
        return _unnamed(routes)
    return find(routes, name)


def find(routes: Routes, name: str) -> Routed | Refused:
    """The upstream of a model's name or alias."""
    model = routes.aliases.get(name, name)
    if not routes.models:
        return Routed(model=model if name in routes.aliases else "")
    if model in routes.models:
        return Routed(routes.models[model].pool, model)
    return Refused(404, "model_not_found", f"the model {name[:SHOWN]!r} is not served here; {_offered(routes)}")


def _unnamed(routes: Routes) -> Routed | Refused:
    if not routes.models:
        return UNREAD
    return Refused(400, "invalid_value", f"model: name one of the models as a text; {_offered(routes)}")


def _offered(routes: Routes) -> str:
    names = [repr(name) for name in sorted({*routes.models, *routes.aliases} - {DEFAULT})]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
