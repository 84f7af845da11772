#!/usr/bin/python
"""The rollout's lock on a host: one rollout at a time, whoever starts it and from where."""

DOCUMENTATION = r"""
module: rollout_lock
short_description: Take, renew or free the rollout's lock
description:
  - The owner is the ansible-playbook process; the action plugin of the same name fills it in.
  - A lock ends with its lease. On the controller that holds it, it also ends with the process.
options:
  path: {type: path, required: true, description: the lock's file}
  state: {type: str, required: true, choices: [held, free], description: what is wanted}
  lease_s: {type: int, default: 3600, description: longest time without a renewal}
  break_lock: {type: bool, default: false, description: take it from whoever holds it}
  owner: {type: dict, description: filled in by the action plugin}
  gone: {type: dict, description: filled in by the action plugin; an owner known to be gone}
author: lingbi
"""
RETURN = r"""
holder: {type: dict, returned: always, description: who held it before}
"""

import json
import os
import time

from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule

IDENTITY = ("controller", "boot", "process", "started")


def identity(owner):
    """What two records of the same owner have in common."""
    return tuple(owner.get(name) for name in IDENTITY) if owner else None


def may_take(holder, params, now):
    """Whether the lock can be taken from its holder; pure."""
    if not holder or identity(holder) == identity(params["owner"]):
        return True
    return params["break_lock"] or holder["until"] < now or identity(holder) == identity(params["gone"])


def read(path):
    """The lock's holder, or {}."""
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def sentence(holder):
    """Who holds the lock, and what to do about it."""
    left = max(0, holder["until"] - time.time())
    return (
        f"{holder['who']} started a rollout from {holder['controller']} at {holder['since']}; wait until it ends. If that "
        f"controller is gone, its lock expires in {left:.0f} s; lingbi_break_lock=true takes it at once"
    )


def hold(module, path, holder):
    """Take or renew the lock; fail with its holder's name."""
    params, now = module.params, time.time()
    if not may_take(holder, params, now):
        module.fail_json(msg=sentence(holder), holder=holder)
    is_ours = identity(holder) == identity(params["owner"])
    since = holder["since"] if is_ours else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    text = json.dumps(params["owner"] | {"since": since, "until": now + params["lease_s"]})
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if holder:
        unit.write_atomically(path, text)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        module.fail_json(msg="another rollout started at this moment; wait until it ends")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "required": True, "choices": ["held", "free", "seen"]},
            "lease_s": {"type": "int", "default": 3600},
            "break_lock": {"type": "bool", "default": False},
            "owner": {"type": "dict"},
            "gone": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    path, state = module.params["path"], module.params["state"]
    holder = read(path)
    if state == "held" and not module.check_mode:
        hold(module, path, holder)
    if state == "free" and not module.check_mode and identity(holder) == identity(module.params["owner"]):
        os.unlink(path)
    module.exit_json(changed=False, holder=holder)


if __name__ == "__main__":
    main()
