#!/usr/bin/python
"""Waits until a server has no running answers."""

DOCUMENTATION = r"""
module: server_idle
short_description: Wait until a server's workers have no requests
options:
  endpoints: {type: list, elements: str, required: true, description: host:port of each worker}
  wait_s: {type: int, required: true, description: longest wait}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long the wait was}
"""

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_server as server
from ansible.module_utils.basic import AnsibleModule


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
    try:
        seconds = server.wait_until_idle(module.params["endpoints"], module.params["wait_s"])
    except docker.Failed as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
