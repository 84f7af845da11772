"""Where the hosts of an inventory serve: their workers, and how a gateway is reached."""


def endpoints(host):
    """host:port of each worker of a host. host: its hostvars, with the facts of the role lingbi."""
    first = int(host["lingbi_run_port"])
    return [f"{host['lingbi_run_address']}:{first + worker}" for worker in range(int(host["lingbi_run_workers"]))]


def worker_count(workers, gpus, found):
    """Number of workers of a host: as asked for, else one for each GPU, or one on the CPU."""
    if int(workers):
        return int(workers)
    return max(1, len(found) if gpus == "all" else len(gpus))


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
            "lingbi_gateway_place": gateway_place,
        }
