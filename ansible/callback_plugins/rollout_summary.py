"""Prints a table at the end of a playbook, however it ended: what became of every host that was to roll."""

DOCUMENTATION = r"""
name: rollout_summary
type: aggregate
short_description: A table of what a rollout did
description: [Lists each unit that was rolled, put back or left as it was, with its times.]
options:
  summary_file:
    description: file that gets the table too, as JSON
    type: str
    default: ''
    env: [{name: LINGBI_SUMMARY_FILE}]
author: lingbi
"""

import json
import time
from pathlib import Path

from ansible.plugins.callback import CallbackBase

COLUMNS = (
    "host",
    "unit",
    "before",
    "version",
    "result",
    "drain s",
    "stop s",
    "start s",
    "smoke s",
    "away s",
    "ours s",
    "why",
)


class CallbackModule(CallbackBase):
    """Listens to the modules that do the work, so that the playbooks need not report anything."""

    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "rollout_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.rows, self.lost, self.drained, self.away = {}, {}, {}, {}
        self.turn_began, self.turns = time.time(), {}

    def v2_playbook_on_play_start(self, play):
        """A play in batches starts anew with each batch: the hosts of the one before have had their turn."""
        self._end_turn()
        self.turn_began = time.time()

    def _end_turn(self):
        for host, unit in self.rows:
            if unit == "server":
                self.turns.setdefault(host, time.time() - self.turn_began)

    def v2_runner_on_ok(self, result):
        action, arguments = result.task.action, result.task.args
        if action == "unit_run" and arguments.get("action") in ("confirm", "note") and result.result.get("changed"):
            self._note(result, arguments["entry"])
        if action == "server_swap" and "recorded" in result.result:
            self._note(result, result.result["recorded"])
        if action == "gateway_upstreams":
            self._follow(result.result)

    def _note(self, result, entry):
        """A unit's last entry is what became of it."""
        host = result.host.get_name()
        self.rows[host, entry["unit"]] = entry | {"host": host}

    def v2_runner_item_on_ok(self, result):
        self.v2_runner_on_ok(result)

    def v2_runner_on_unreachable(self, result):
        self.lost[result.host.get_name()] = str(result.result.get("msg", "")).strip().splitlines()[:1]

    def _follow(self, result):
        for name, server in result.get("servers", {}).items():
            if server["token"]:
                self.drained.setdefault(name, result["at"])
            elif name in self.drained:
                self.away[name] = result["at"] - self.drained.pop(name)

    def v2_playbook_on_stats(self, stats):
        self._end_turn()
        rows = [self._row(entry) for entry in self.rows.values()]
        rows += [
            {"host": host, "result": "unreachable", "why": " ".join(why)} for host, why in sorted(self.lost.items())
        ]
        if not rows:
            return
        for line in table(rows) + advice(rows):
            self._display.display(line)
        if self.get_option("summary_file"):
            Path(self.get_option("summary_file")).write_text(json.dumps(rows, indent=1, ensure_ascii=False))

    def _row(self, entry):
        seconds = {f"{name} s": round(value, 1) for name, value in entry.get("seconds", {}).items()}
        if entry["unit"] == "server" and entry["host"] in self.away:
            seconds["away s"] = round(self.away[entry["host"]], 1)
            own = sum(entry.get("seconds", {}).get(name, 0) for name in ("drain", "stop", "start"))
            seconds["ours s"] = round(self.turns[entry["host"]] - own, 1)
        return {name: entry[name] for name in COLUMNS if name in entry} | seconds


def table(rows):
    """The rows as lines of equal columns."""
    shown = [[str(row.get(name, "")) for name in COLUMNS] for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return ["", "ROLLOUT", *lines]


def advice(rows):
    """What to do next where not every unit was rolled."""
    if all(row["result"] == "rolled" for row in rows):
        return []
    return [
        "",
        "Not everything was rolled. `scripts/lab status` shows what each host runs; the same command again goes on, and "
        "`rollback` takes back what was rolled.",
    ]
