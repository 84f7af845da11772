"""Routing by model: what nginx and the router are told of the models and their servers. Everything here is pure."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lingbi_gateway import errors
from lingbi_gateway.router.decision import ROUTED, ROUTED_IMPATIENT
from lingbi_gateway.router.running import LOGGED
from lingbi_gateway.servers import Server, by_model
from lingbi_gateway.settings import PREFIX, ConfigurationError, Settings
from lingbi_gateway.templates import fill, read

FILE = "routes.json"  # what the router reads, again whenever it changes
SOCKET = "router/ask.sock"
SOCKET_BYTES = 107  # of a Unix socket's path, unix(7)
NO_NAME = ""  # of the model where there is one
STAND_INS = 2
ROUTER_TIMEOUT_S = 10  # how long nginx waits for the router
# When nginx asks another server, and leaves the first one out for a while.
NEXT, NEXT_OF_IMPATIENT = "error timeout http_503 non_idempotent", "error timeout non_idempotent"
NONE = "# One server, or nothing that would choose among them: nothing is routed.\n"


def is_routed(settings: Settings, servers: tuple[Server, ...]) -> bool:
    """Whether the router is asked: for several models, for aliases, and where one of several servers holds a
    conversation. Raises ConfigurationError."""
    models = by_model(servers)
    _check_aliases(settings, models)
    return len(models) > 1 or bool(settings.aliases) or (settings.affinity == "on" and len(servers) > 1)


def depends_on_router(settings: Settings, servers: tuple[Server, ...]) -> bool:
    """Whether nothing is answered without the router; where there is one model, any server will do meanwhile."""
    return is_routed(settings, servers) and NO_NAME not in _groups(settings, servers)


def _check_aliases(settings: Settings, models: dict[str, Any]) -> None:
    for alias, model in settings.aliases:
        where = f"{PREFIX}ALIASES={alias + '=' + model!r}"
        if alias in models:
            raise ConfigurationError(f"{where}: {alias!r} is the name of a model that is served; choose another alias")
        if models and settings.servers and model not in models:
            raise ConfigurationError(f"{where}: no server has the model {model!r}; those listed are {_names(models)}")
        if model in dict(settings.aliases):
            raise ConfigurationError(f"{where}: {model!r} is an alias itself; give the model's own name")


def _check_folder(settings: Settings) -> None:
    left = SOCKET_BYTES - len(f"/{SOCKET}")
    if len(os.fsencode(settings.dir)) > left:
        raise ConfigurationError(
            f"{PREFIX}DIR={str(settings.dir)!r}: the router's socket is below it, and so it may have {left} bytes; "
            "choose a shorter path"
        )


def _names(models: Iterable[str]) -> str:
    return ", ".join(sorted(models))


def pool(model: str) -> str:
    """The name of a model's upstream: the same in every gateway and after every reload, whatever the list holds. Empty,
    which is any server, for a model without a name."""
    if model == NO_NAME:
        return ""
    return f"model_{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def files(settings: Settings, servers: tuple[Server, ...], limits: dict[str, int], ends_port: int) -> dict[str, str]:
    """{file name: text} of the routes, those of nginx and the router's. Raises ConfigurationError."""
    if not is_routed(settings, servers):
        plain = {name: NONE for name in ("models.conf", "routes.conf", "inner-routes.conf")}
        return plain | {FILE: json.dumps(None) + "\n"}
    _check_folder(settings)
    models = _groups(settings, servers)
    values = {"dir": settings.dir, "line": errors.router_late().rstrip()}
    late = fill(read("router-late.conf"), values)
    without = fill(read("without-router.conf"), values) if NO_NAME in models else late
    fallback = {"without_router": without, "router_late": late, "router_timeout_s": ROUTER_TIMEOUT_S}
    form = read("routes.conf") + _routed() + (read("unrouted.conf") if NO_NAME in models else "")
    return {
        "models.conf": fill(read("models.conf"), values | {"ends_port": ends_port} | _upstreams(settings, models)),
        "routes.conf": fill(form, fallback | {"limits": fill(read("limits.conf"), limits)}),
        "inner-routes.conf": fill(form, fallback | {"limits": ""}),
        FILE: json.dumps(told(settings, models), indent=1) + "\n",
    }


def _routed() -> str:
    """nginx's locations to which the router sends requests."""
    found = ((ROUTED, NEXT), (ROUTED_IMPATIENT, NEXT_OF_IMPATIENT))
    return "".join(fill(read("routed.conf"), {"location": location, "next": when}) for location, when in found)


def _groups(settings: Settings, servers: tuple[Server, ...]) -> dict[str, tuple[Server, ...]]:
    """{model: its servers}; all under no name where the names do not matter, because there is one model."""
    models = by_model(servers)
    return models if len(models) > 1 or (models and settings.aliases) else {NO_NAME: servers}


def told(settings: Settings, models: dict[str, tuple[Server, ...]]) -> dict[str, Any]:
    """What the router is told: each model's upstream and addresses, the aliases, and whether to place requests."""
    return {
        "models": {
            model: {
                "pool": pool(model),
                "servers": [server.address for server in group if not server.is_down],
                "drained": [server.address for server in group if server.is_down],
            }
            for model, group in models.items()
        },
        "aliases": dict(settings.aliases),
        "places": settings.affinity == "on",
    }


def _upstreams(settings: Settings, models: dict[str, tuple[Server, ...]]) -> dict[str, str]:
    named = {model: group for model, group in models.items() if model != NO_NAME}
    pools = "".join(f"    {pool(model)} {pool(model)};\n" for model in named)
    upstreams = "".join(_pool(model, group) for model, group in named.items())
    placed = [item for item in models.items() if settings.affinity == "on"]
    pairs = [(model, server) for model, group in placed for server in _taking(group)]
    places = "".join(f'    "{pool(model)} {server.address}" {_place(model, server)};\n' for model, server in pairs)
    servers = "".join(_with_others(model, server, _taking(dict(models)[model])) for model, server in pairs)
    found = {"pools": pools, "upstreams": upstreams, "places": places, "servers": servers}
    return found | {"socket": SOCKET, "logged": LOGGED}


def _taking(group: tuple[Server, ...]) -> tuple[Server, ...]:
    return tuple(server for server in group if not server.is_down)


def _pool(model: str, group: tuple[Server, ...]) -> str:
    return fill(read("model.conf"), {"pool": pool(model), "servers": _lines(group)}) + "\n"


def _place(model: str, server: Server) -> str:
    return f"server_{hashlib.sha256(f'{model} {server.address}'.encode()).hexdigest()[:16]}"


def _with_others(model: str, server: Server, group: tuple[Server, ...]) -> str:
    """The upstream of one server: those after it in the list stand in for it when it fails."""
    at = group.index(server)
    others = (group[at + 1 :] + group[:at])[:STAND_INS]
    spare = tuple(replace(other, options=(*other.options, "backup")) for other in others)
    return fill(read("server.conf"), {"place": _place(model, server), "servers": _lines((server, *spare))})


def _lines(group: tuple[Server, ...]) -> str:
    return "\n".join(f"    {server.directive()}" for server in group)
