"""The table of `scripts/lab status`, and a sentence for each thing that is not as the inventory declares. Pure."""

from __future__ import annotations

from typing import Any

Answer = dict[str, Any]  # of one host: host, version, model, wanted (its groups), report
COLUMNS = ("host", "unit", "wanted", "runs", "model", "workers", "gateways", "last rollout")
UNITS = {"lingbi_servers": "server", "lingbi_gateways": "gateway"}
READY = "ready"


def lines_of(answers: list[Answer]) -> tuple[list[str], list[str]]:
    """(all lines to print, the faults among them)."""
    rows = [row_of(answer, unit, answers) for answer in answers for unit in units_of(answer)]
    faults = [fault for answer in answers for fault in faults_of(answer, answers)]
    told = ["", *(f"  {fault}" for fault in faults)] if faults else ["", "All is as the inventory declares."]
    return [*aligned(rows), *models_of(answers), *told, *running_rollout(answers)], faults


def units_of(answer: Answer) -> list[str]:
    return [UNITS[group] for group in answer["wanted"]]


def row_of(answer: Answer, unit: str, answers: list[Answer]) -> list[str]:
    """One unit's line, in the order of COLUMNS."""
    found = unit_in(answer, unit)
    if found is None:
        return [answer["host"], unit, answer["version"], "?" if silence_of(answer) else "nothing", "", "", "", ""]
    is_server = unit == "server"
    workers = [worker["how"] for worker in found["workers"].values()]
    ready = f"{workers.count(READY)}/{len(workers)} ready" if is_server else ""
    views = ", ".join(views_of(answer["host"], answers)) if is_server else reached(answer)
    model = found["model"] if is_server else ""
    return [answer["host"], unit, answer["version"], found["runs"] or "nothing", model, ready, views, last_of(found)]


def unit_in(answer: Answer, unit: str) -> dict[str, Any] | None:
    """What a host says of a unit; None if it says nothing, or has none."""
    found: dict[str, Any] | None = answer["report"].get("units", {}).get(unit)
    return found


def silence_of(answer: Answer) -> str:
    """Why a host gave no answer; empty if it did."""
    report = answer["report"]
    if "units" in report:
        return ""
    said = " ".join(f"{report.get('msg', '')} {report.get('module_stderr', '')}".split())
    if report.get("unreachable"):
        return f"cannot be reached over SSH: {said}"
    return f"gives no answer: {said}; are Python, sudo (-K for a password) and Docker there?"


def views_of(server: str, answers: list[Answer]) -> list[str]:
    """How each gateway sees a server, as in `gate1: serves`."""
    gateways = [answer for answer in answers if "gateway" in units_of(answer)]
    return [f"{gateway['host']}: {view_of(server, gateway)}" for gateway in gateways]


def view_of(server: str, gateway: Answer) -> str:
    """How one gateway sees a server."""
    if "servers" not in gateway["report"]:
        return "?"
    listed = gateway["report"]["servers"].get(server)
    if listed is None:
        return "not listed"
    if listed["is_drained"]:
        return "drained"
    away = [worker["how"] for worker in listed["workers"].values() if worker["how"] != READY]
    return away[0] if away else "serves"


def reached(gateway: Answer) -> str:
    """How many of its servers a gateway sends requests to."""
    servers = gateway["report"]["servers"]
    return f"{sum(view_of(name, gateway) == 'serves' for name in servers)}/{len(servers)} servers serve"


def last_of(found: dict[str, Any]) -> str:
    """What the last rollout did with a unit, as its host recorded it."""
    last = found["last"]
    if not last:
        return ""
    return f"{last['at']} {last.get('before') or 'nothing'} -> {last['version']}: {last['result']}"


def faults_of(answer: Answer, answers: list[Answer]) -> list[str]:
    """Sentences about one host, each with what to do."""
    host, silence = answer["host"], silence_of(answer)
    if silence:
        return [f"{host}: {silence}"]
    found = {unit: unit_in(answer, unit) for unit in units_of(answer)}
    missing = [f"{host}: has no {unit} yet; site brings it up" for unit, known in found.items() if known is None]
    faults = [fault for unit, known in found.items() if known for fault in unit_faults(unit, known, answer)]
    views = views_of(host, answers) if found.get("server") else []
    away = [f"{host}: {view}" for view in views if not view.endswith((": serves", ": ?"))]
    return missing + [f"{host}: {fault}" for fault in faults] + away


def unit_faults(unit: str, found: dict[str, Any], answer: Answer) -> list[str]:
    """What is wrong with a unit that is there."""
    faults = []
    if found["ill"]:
        faults.append(f"{', '.join(found['ill'])}: not running, or not healthy; site starts it again")
    if found["runs"] and found["runs"] != answer["version"]:
        faults.append(
            f"the {unit} runs {found['runs']}, and the inventory declares {answer['version']}; deploy rolls out what it declares, "
            f"rollback takes a failed rollout back; if {found['runs']} is right, declare lingbi_version: {found['runs']}"
        )
    if not found["is_proven"]:
        faults.append(f"the {unit} was started by a rollout that ended before the test; site or deploy starts it anew")
    if unit == "server" and found["model"] and found["model"] != answer["model"]:
        faults.append(f"the model is {found['model']}, and the inventory declares {answer['model']}; site rolls it out")
    away = {end: worker["how"] for end, worker in found["workers"].items() if worker["how"] != READY}
    return faults + [f"worker {endpoint}: {how}" for endpoint, how in away.items()]


def models_of(answers: list[Answer]) -> list[str]:
    """A line for each model with the hosts that have it, where a lab has several."""
    found: dict[str, dict[str, list[str]]] = {}
    for answer in answers:
        for worker in (unit_in(answer, "server") or {"workers": {}})["workers"].values():
            if worker["model"]:
                found.setdefault(worker["model"], {}).setdefault(answer["host"], []).append(worker["how"])
    if len(found) < 2:
        return []
    hosts = {
        model: ", ".join(f"{host} {ways.count(READY)}/{len(ways)} ready" for host, ways in held.items())
        for model, held in sorted(found.items())
    }
    return ["", *(f"{model}: {held}" for model, held in hosts.items())]


def running_rollout(answers: list[Answer]) -> list[str]:
    """A line about the rollout that runs, if one does."""
    holders = [answer["report"].get("holder") for answer in answers]
    return [
        f"A rollout holds the lab: {holder['who']} started it from {holder['controller']} at {holder['since']}."
        for holder in holders
        if holder
    ]


def aligned(rows: list[list[str]]) -> list[str]:
    """The rows as lines of equal columns, below their names; a column in which nothing stands is left out."""
    shown = [list(COLUMNS), *rows]
    kept = [column for column in range(len(COLUMNS)) if any(row[column] for row in rows)]
    widths = {column: max(len(row[column]) for row in shown) for column in kept}
    return ["  ".join(row[column].ljust(widths[column]) for column in kept).rstrip() for row in shown]
