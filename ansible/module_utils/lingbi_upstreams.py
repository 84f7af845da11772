"""A gateway's list of servers as a file that nginx includes: each worker a line, with its server's name, drain and model."""

import re

FILE = "servers.conf"
HEAD = "# Written by Ansible; each line is a worker, with its server's name and its model.\n"
NOBODY = "server 127.0.0.1:9 down; # nobody\n"  # nginx needs at least one line
LINE = re.compile(
    r"server (?P<endpoint>\S+?)(?P<down> down)?; # (?P<name>\S+)(?: drained (?P<token>\S+))?(?: model=(?P<model>\S+))?$"
)


def parse(text):
    """{name: {"endpoints", "models", "token"}}; models: {endpoint: its model, as far as the list says}; token is None for
    servers that receive requests."""
    servers = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and match["name"] != "nobody":
            token = match["token"] if match["down"] else None
            server = servers.setdefault(match["name"], {"endpoints": [], "models": {}, "token": token})
            server["endpoints"].append(match["endpoint"])
            server["models"] |= {match["endpoint"]: match["model"]} if match["model"] else {}
    return servers


def render(servers):
    """The file's text; pure."""
    lines = [
        line(name, endpoint, server) for name, server in sorted(servers.items()) for endpoint in server["endpoints"]
    ]
    return HEAD + ("".join(lines) or NOBODY)


def line(name, endpoint, server):
    """One worker's line; the gateway reads which model it has from the comment."""
    state, drain = (" down", f" drained {server['token']}") if server["token"] else ("", "")
    model = server["models"].get(endpoint)
    return f"server {endpoint}{state}; # {name}{drain}" + (f" model={model}" if model else "") + "\n"


def unnamed(servers, joined):
    """The workers that have to be asked for their model: those of servers that join, and those whose model is not known."""
    return [
        endpoint
        for name, server in servers.items()
        for endpoint in server["endpoints"]
        if name in joined or endpoint not in server["models"]
    ]


def named(servers, told, joined):
    """The list with the models that workers told; told: {endpoint: model}. Raises ValueError.

    A gateway takes a list in which every line names its model, or none does. Where others are named, a server that does not
    tell its model does not answer either: it is left out until it joins, and one that joins now has to tell.
    """
    known = {
        name: server | {"models": server["models"] | {end: told[end] for end in server["endpoints"] if end in told}}
        for name, server in servers.items()
    }
    whole = {name: server for name, server in known.items() if set(server["endpoints"]) <= set(server["models"])}
    if not any(server["models"] for server in known.values()):
        return known
    silent = sorted(name for name in joined if name in known and name not in whole)
    if silent:
        raise ValueError(
            f"{', '.join(silent)}: the workers do not tell which model they have; ask their /ready, and their log"
        )
    return whole
