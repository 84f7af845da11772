#!/usr/bin/python
"""Waits until a server runs no answer any more."""

DOCUMENTATION = r"""
module: server_idle
short_description: Wait until a server's workers have no request inside
options:
  endpoints: {type: list, elements: str, required: true, description: host:port of each worker}
  wait_s: {type: int, required: true, description: longest wait}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long the wait was}
"""

import re  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

POLL_S = 0.3
ANSWER_S = 5
INSIDE = re.compile(r"^lingbi_requests_inside(?:\{[^}]*\})? (\S+)$", re.M)
LOOKS = 2  # in a row: a request may be under way from the gateway to the server at the first


def inside(text):
    """Requests inside a worker, by its /metrics."""
    found = INSIDE.search(text)
    if not found:
        raise ValueError("/metrics has no lingbi_requests_inside")
    return float(found[1])


def ask(endpoint):
    """Requests inside a worker; 0 where nobody listens, for nothing can be cut there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{endpoint}/metrics", timeout=ANSWER_S) as response:
            return inside(response.read().decode())
    except OSError:
        return 0.0


def main():
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "wait_s": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, seconds=0.0)
    begun, idle = time.monotonic(), 0
    while idle < LOOKS:
        running = sum(ask(endpoint) for endpoint in module.params["endpoints"])
        idle = idle + 1 if not running else 0
        seconds = round(time.monotonic() - begun, 2)
        if idle < LOOKS and seconds > module.params["wait_s"]:
            module.fail_json(
                msg=f"{running:.0f} answers still run after {seconds:.0f} s (lingbi_drain_wait_s); nothing was stopped: "
                "wait longer, or roll when fewer people ask",
                seconds=seconds,
            )
        if idle < LOOKS:
            time.sleep(POLL_S)
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
