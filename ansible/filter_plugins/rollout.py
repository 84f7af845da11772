"""Which version a rollback goes back to, and which servers a rollout has yet to finish."""

import json

from ansible.errors import AnsibleFilterError


def rollback_plan(records, wanted):
    """{"version", "images"} to go back to: the wanted version, or the one that ran before.

    A version that a rollback left does not count, so that a second rollback goes one version further; one that did not
    end is finished first. records: a text for each host, of record.jsonl of its units, oldest line first. Raises
    AnsibleFilterError if there is no such version, or nothing to take back.
    """
    hosts = [[json.loads(line) for line in record.splitlines() if line.strip()] for record in records]
    events = sorted((entry for entries in hosts for entry in entries), key=lambda entry: entry["at"])
    done = [entry for entry in events if entry["result"] == "rolled"]
    version = wanted or version_before(events, done, running_versions(hosts))
    known = list(dict.fromkeys(entry["version"] for entry in reversed(done)))
    if version not in known:
        raise AnsibleFilterError(
            f"lingbi_rollback_to={version}: it never ran here; the record has {', '.join(known) or 'none'}; use deploy"
        )
    images = {}
    for entry in done:
        images |= entry["images"] if entry["version"] == version else {}
    return {"version": version, "images": images}


def running_versions(hosts):
    """The versions that the units run, by what was last rolled on each. hosts: the entries of each host's units."""
    last = {
        (number, entry["unit"]): entry["version"]
        for number, entries in enumerate(hosts)
        for entry in entries
        if entry["result"] == "rolled"
    }
    return set(last.values())


def version_before(events, done, running):
    """The version that a rollback without a wanted one goes back to. Raises AnsibleFilterError."""
    last = events[-1] if events else {}
    if last.get("is_rollback") and running != {last["version"]}:
        return last["version"]  # it did not end, or did not begin
    if last and last["result"] != "rolled" and len(running) == 1 and last["version"] not in running:
        raise AnsibleFilterError(
            f"nothing is left of the rollout of {last['version']}, which failed: everything runs {running.pop()}; name the "
            "version to go back to with -e lingbi_rollback_to=VERSION"
        )
    stack = version_stack(done)
    if len(stack) < 2:
        raise AnsibleFilterError(
            "the record has no version before this one; name one with -e lingbi_rollback_to=VERSION"
        )
    return stack[-2]


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
