"""Which models a host of the inventory serves: `lingbi_model`, in the form of LINGBI_MODEL, read by the server's own parser."""

import sys
from pathlib import Path

from ansible.errors import AnsibleFilterError

sys.path.append(str(Path(__file__).resolve().parents[2] / "docker/server"))

from lingbi.errors import ConfigurationError  # noqa: E402 - the path above leads to it
from lingbi.model import catalogue, wanted  # noqa: E402


def host_models(text):
    """[{"name", "workers"}] of a value of lingbi_model; workers is None where it does not say how many. Raises
    AnsibleFilterError."""
    try:
        models = wanted.parse(str(text), lambda name: False)
    except ConfigurationError as error:
        raise AnsibleFilterError(str(error).replace("LINGBI_MODEL", "lingbi_model", 1)) from None
    return [{"name": model.name, "workers": model.workers} for model in models]


def model_faults(text, folder, workers, together=1):
    """A sentence for each reason why a host cannot serve what its variables say. folder: lingbi_model_folder; workers:
    lingbi_workers; together: LINGBI_TP."""
    try:
        models = host_models(text)
    except AnsibleFilterError as error:
        return [str(error)]
    if len(models) == 1 and models[0]["workers"] is None:
        return together_faults(workers, together)
    faults = []
    if int(workers):
        faults.append(
            f"lingbi_workers: {workers}, and lingbi_model: {text} says how many workers each model has; leave lingbi_workers out"
        )
    if folder:
        faults.append(
            f"lingbi_model_folder: {folder} holds one model, and lingbi_model: {text} asks for others; leave one of them out"
        )
    return faults


def together_faults(workers, together):
    """A sentence where only the server itself would know how many workers it has: gateways list them before it starts."""
    if str(together) != "auto" or int(workers):
        return []
    return [
        "lingbi_settings: LINGBI_TP: auto: the gateways list a host's workers before it starts any; give lingbi_workers too, "
        "or LINGBI_TP: 2"
    ]


def asked_workers(text, workers):
    """How many workers a host is asked to run; 0 is one for each GPU. workers: lingbi_workers, of a lone model."""
    models = host_models(text)
    if len(models) == 1:
        return models[0]["workers"] or int(workers)
    return sum(model["workers"] or 1 for model in models)


def fetched_models(text, folder):
    """Names of the models whose weights a host has to have: none where a folder holds them, and not the demo."""
    if folder:
        return []
    return [model["name"] for model in host_models(text) if wanted.canonical(model["name"]) != catalogue.DEMO]


def turn_of(state, host, is_behind, text, folder):
    """What turns.py takes of a host. state: what the role server found; is_behind: whether the engine has to be restarted;
    text, folder: lingbi_model and lingbi_model_folder."""
    running = state["running"]
    container = state["containers"].get("server") or {}
    serves = (
        bool(running.get("model")) and container.get("state") == "running" and container.get("health") != "unhealthy"
    )
    seconds = running.get("seconds") or {}
    return {
        "name": host,
        "is_due": bool(state["needs"] or is_behind),
        "before": names(running["model"], running.get("folder", folder)) if serves else [],
        "after": names(text, folder),
        "seconds": sum(seconds.values()) if "start" in seconds else None,
    }


def names(text, folder):
    """What tells the models of these variables apart: one name of each, whichever of them stands there, or the folder."""
    return [folder] if folder else [wanted.canonical(model["name"]) for model in host_models(text)]


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_host_models": host_models,
            "lingbi_model_faults": model_faults,
            "lingbi_asked_workers": asked_workers,
            "lingbi_fetched_models": fetched_models,
            "lingbi_turn": turn_of,
        }
