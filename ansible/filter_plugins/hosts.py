"""Where the hosts of an inventory serve: their workers, the GPUs that they can have, and how a gateway is reached."""

import ast
from pathlib import Path

from ansible.errors import AnsibleFilterError


def endpoints(host):
    """host:port of each worker of a host. host: its hostvars, with the facts of the role lingbi."""
    first = int(host["lingbi_run_port"])
    return [f"{host['lingbi_run_address']}:{first + worker}" for worker in range(int(host["lingbi_run_workers"]))]


def worker_count(workers, gpus, found, together=1):
    """Number of workers of a host: as asked for, else one for each GPU, or one on the CPU; together: LINGBI_TP."""
    if int(workers):
        return int(workers)
    each = 2 if str(together) == "2" else 1
    return max(1, (len(found) if gpus == "all" else len(gpus)) // each)


def gpu_capabilities(module):
    """[oldest, newest] compute capability that TurboMind has code for, from the module of the server that declares them."""
    for node in ast.parse(Path(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).strip("()") == "OLDEST, NEWEST":
            return [list(capability) for capability in ast.literal_eval(node.value)]
    raise AnsibleFilterError(f"{module} does not declare OLDEST, NEWEST")


def gateway_place(listens, tls_folder, tls_name):
    """{"url", "options"}: a gateway's URL, and what docker run needs to find it under a certificate's name.

    listens: {"address": of its host, "bind": address it listens on, "port"}.
    """
    address = listens["address"] if listens["bind"] in ("0.0.0.0", "::") else listens["bind"]
    is_named = bool(tls_folder and tls_name)
    shown = tls_name if is_named else f"[{address}]" if ":" in address else address
    options = [f"--add-host={tls_name}:{address}"] if is_named else []
    return {"url": f"http{'s' if tls_folder else ''}://{shown}:{listens['port']}", "options": options}


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_endpoints": endpoints,
            "lingbi_worker_count": worker_count,
            "lingbi_gpu_capabilities": gpu_capabilities,
            "lingbi_gateway_place": gateway_place,
        }
