"""Decisions of the playbooks: pure functions of the inventory."""

import json
import os
import re
from pathlib import Path

import yaml

from ansible.errors import AnsibleFilterError


def key_place(path, is_check):
    """Where the password lookup looks for a key; in check mode a new one is kept nowhere."""
    return path if os.path.exists(path) or not is_check else os.devnull


def endpoints(host):
    """host:port of each worker of a host (its hostvars, with the workers that were planned)."""
    first = int(host["lingbi_run_port"])
    return [f"{host['lingbi_run_address']}:{first + worker}" for worker in range(int(host["lingbi_run_workers"]))]


def gateway_place(listens, tls_folder, tls_name):
    """{"url", "options"}: where a gateway is asked, and what docker run needs to find it under a certificate's name.

    listens: {"address": of its host, "bind": what it listens on, "port"}.
    """
    address = listens["address"] if listens["bind"] in ("0.0.0.0", "::") else listens["bind"]  # noqa: S104
    is_named = bool(tls_folder and tls_name)
    shown = tls_name if is_named else f"[{address}]" if ":" in address else address
    options = [f"--add-host={tls_name}:{address}"] if is_named else []
    return {"url": f"http{'s' if tls_folder else ''}://{shown}:{listens['port']}", "options": options}


def worker_count(workers, gpus, found):
    """Workers of a host: as asked, else one a GPU, one on the CPU."""
    if int(workers):
        return int(workers)
    return max(1, len(found) if gpus == "all" else len(gpus))


def spread_parent(position, fan_out=1):
    """Which host passes weights to the one at a position (0 has them first), and in which round.

    In each round every host that has the weights serves fan_out others, so their number grows by
    the factor 1 + fan_out. Returns {"round": 0, "parent": None} for the first.
    """
    holders, round_number = 1, 0
    while position >= holders:
        holders, round_number = holders * (1 + fan_out), round_number + 1
    if not round_number:
        return {"round": 0, "parent": None}
    before = holders // (1 + fan_out)
    return {"round": round_number, "parent": (position - before) % before}


def spread_rounds(hosts, fan_out=1):
    """Rounds until all of a number of hosts have the weights."""
    return spread_parent(hosts - 1, fan_out)["round"] if hosts else 0


def weights_holder(host):
    """A host's name and the digest of the weights that it has, of its hostvars."""
    return {"name": host["inventory_hostname"], "weights_digest": host.get("weights_digest", "")}


def rollback_plan(records, wanted):
    """{"version", "images"} to go back to, of the records' lines (oldest first): wanted, or what ran before.

    A version that a rollback left is not gone back to: a second rollback goes one further.
    records: the texts of record.jsonl of all units. Raises where nothing such was ever proven to run.
    """
    entries = [json.loads(line) for record in records for line in record.splitlines() if line.strip()]
    done = sorted((entry for entry in entries if entry["result"] == "rolled"), key=lambda entry: entry["at"])
    stack = version_stack(done)
    if not wanted and len(stack) < 2:
        raise AnsibleFilterError(
            "the record knows no version before this one; name one with -e lingbi_rollback_to=VERSION"
        )
    version = wanted or stack[-2]
    known = list(dict.fromkeys(entry["version"] for entry in reversed(done)))
    if version not in known:
        raise AnsibleFilterError(
            f"lingbi_rollback_to={version}: it never ran here; the record knows {', '.join(known) or 'none'}; use deploy"
        )
    images = {}
    for entry in done:
        images |= entry["images"] if entry["version"] == version else {}
    return {"version": version, "images": images}


def version_stack(done):
    """Versions that led to the one that runs, oldest first, without those that a rollback left; pure."""
    stack = []
    for entry in done:
        version = entry["version"]
        if entry.get("is_rollback") and version in stack:
            stack = stack[: stack.index(version) + 1]
        elif not stack or stack[-1] != version:
            stack = [other for other in stack if other != version] + [version]
    return stack


def compose_file(name, repository):
    """A compose file of the repository, as unit_files takes it."""
    return {"content": (Path(repository) / name).read_text(encoding="utf-8"), "mode": "0600"}


def secret_files(secrets, owner):
    """Secrets as unit_files takes them: readable for their owner only."""
    return {
        f"secrets/{name}": {"content": f"{value}\n", "mode": "0400", "owner": int(owner)}
        for name, value in secrets.items()
    }


def server_port(compose):
    """The port of a host's first worker, which the compose file says."""
    return int(re.search(r'^  LINGBI_PORT: "(\d+)"$', Path(compose).read_text(encoding="utf-8"), re.M)[1])


def key_file(name):
    """Where the key of a client lies, as a secret of Compose."""
    return {"file": f"secrets/key-{name}"}


def key_secret(name):
    """The key of a client, as the server's container gets it."""
    return {"source": f"key-{name}", "target": f"/run/lingbi/keys/{name}"}


def first_line(text):
    """The first line of a text that says anything."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


def fault(result):
    """What a failed task says, in a sentence: of a loop's first failed item where it was a loop."""
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    wrong = [line for line in failed.get("stderr_lines", []) if line.startswith(("FAIL", "error"))]
    return "; ".join(wrong) or failed.get("msg") or "a task failed"


def last_words(result):
    """The last lines that the containers, or a failed command, wrote."""
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    return failed.get("log") or failed.get("stdout_lines", []) + failed.get("stderr_lines", [])


def env_value(value):
    """A value as it stands in an env file; within single quotes nothing has a meaning."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[\w./:,@%+=-]*", text):
        return text
    if "'" in text or "\n" in text:
        raise AnsibleFilterError(
            f"the value {text!r} holds a quote or a line break, which an env file cannot; change it"
        )
    return f"'{text}'"


def compose_images(compose):
    """{service: image} of a compose file."""
    services = yaml.safe_load(Path(compose).read_text(encoding="utf-8"))["services"]
    return {name: service["image"] for name, service in services.items()}


def services_of(images):
    """Services of a compose file that say nothing but their image."""
    return {name: {"image": image} for name, image in images.items()}


def open_servers(hosts, hostvars):
    """Servers that were to roll in this run and have not."""
    return [
        host for host in hosts if "server_state" in hostvars[host] and not hostvars[host].get("server_is_done", False)
    ]


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_endpoints": endpoints,
            "lingbi_worker_count": worker_count,
            "lingbi_gateway_place": gateway_place,
            "lingbi_spread_parent": spread_parent,
            "lingbi_spread_rounds": spread_rounds,
            "lingbi_compose_file": compose_file,
            "lingbi_secret_files": secret_files,
            "lingbi_server_port": server_port,
            "lingbi_compose_images": compose_images,
            "lingbi_services_of": services_of,
            "lingbi_open_servers": open_servers,
            "lingbi_key_file": key_file,
            "lingbi_key_secret": key_secret,
            "lingbi_fault": fault,
            "lingbi_key_place": key_place,
            "lingbi_last_words": last_words,
            "lingbi_first_line": first_line,
            "lingbi_env_value": env_value,
            "lingbi_weights_holder": weights_holder,
            "lingbi_rollback_plan": rollback_plan,
        }
