"""scripts/lab status: one table of what a lab runs, beside what its inventory declares. Changes nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from host.env_file import ROOT
from host.lab.table import lines_of
from host.machine import run

Answer = dict[str, Any]  # of one host, as ansible/roles/status writes it
SUMMARY = "LINGBI_SUMMARY_FILE"  # a rollout's own file, which stays as it is


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all is as the inventory declares, 1 something is not, 2 the hosts could not be asked."""
    options = sys.argv[1:] if arguments is None else arguments
    answers = ask(options)
    if answers is None:
        return 2
    lines, faults = lines_of(answers)
    print("\n".join(lines))
    return 1 if faults else 0


def ask(options: list[str]) -> list[Answer] | None:
    """Every host's answer; None, with what Ansible said, if it could not ask."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.json"
        command = ["ansible-playbook", str(ROOT / "ansible/status.yml"), "-e", f"lingbi_run_status_file={file}"]
        inherited = {name: value for name, value in os.environ.items() if name != SUMMARY}
        done = run(*command, *options, env={**inherited, "ANSIBLE_NOCOLOR": "1"})
        if file.exists():
            answers: list[Answer] = json.loads(file.read_text(encoding="utf-8"))
            return answers
    print(f"{done.stdout}{done.stderr}".strip(), file=sys.stderr)
    return None


if __name__ == "__main__":
    sys.exit(main())
