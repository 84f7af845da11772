"""A playbook run to its end, by an Ansible that knows nothing of whoever runs the tests."""

import os
import subprocess
from pathlib import Path

from tests.ansible.roles import ANSIBLE

LONGEST_S = 120


def played(controller: Path, home: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run ansible-playbook with these arguments. controller: the folder of Ansible's programs; home: whose files it finds."""
    environment = {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment |= {"PATH": f"{controller}:{os.environ['PATH']}", "HOME": str(home)}
    command = [str(controller / "ansible-playbook"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
