"""Which version a rollback goes back to, and which servers a rollout has yet to finish."""

import json

from ansible.errors import AnsibleFilterError


def rollback_plan(records, wanted):
    """{"version", "images"} to go back to: the wanted version, or the one that ran before.

    A version that a rollback left does not count, so that a second rollback goes one version further.
    records: texts of record.jsonl of all units, oldest line first. Raises AnsibleFilterError if no such version ran.
    """
    entries = [json.loads(line) for record in records for line in record.splitlines() if line.strip()]
    done = sorted((entry for entry in entries if entry["result"] == "rolled"), key=lambda entry: entry["at"])
    stack = version_stack(done)
    if not wanted and len(stack) < 2:
        raise AnsibleFilterError(
            "the record has no version before this one; name one with -e lingbi_rollback_to=VERSION"
        )
    version = wanted or stack[-2]
    known = list(dict.fromkeys(entry["version"] for entry in reversed(done)))
    if version not in known:
        raise AnsibleFilterError(
            f"lingbi_rollback_to={version}: it never ran here; the record has {', '.join(known) or 'none'}; use deploy"
        )
    images = {}
    for entry in done:
        images |= entry["images"] if entry["version"] == version else {}
    return {"version": version, "images": images}


def version_stack(done):
    """Versions that led to the one that runs, oldest first, without those that a rollback left."""
    stack = []
    for entry in done:
        version = entry["version"]
        if entry.get("is_rollback") and version in stack:
            stack = stack[: stack.index(version) + 1]
        elif not stack or stack[-1] != version:
            stack = [other for other in stack if other != version] + [version]
    return stack


def open_servers(hosts, hostvars):
    """Servers that this run has yet to finish."""
    return [
        host for host in hosts if "server_state" in hostvars[host] and not hostvars[host].get("server_is_done", False)
    ]


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_rollback_plan": rollback_plan,
            "lingbi_open_servers": open_servers,
        }
