"""The gateways' aliases reach the servers, whose batches may name them; without any, a server's environment stays as it is."""

import json

import pytest

from tests.ansible.play import played
from tests.ansible.roles import ANSIBLE

PLAY = """
- hosts: localhost
  gather_facts: false
  vars_files: [{vars}]
  vars: {{lingbi_gateway_settings: {settings}}}
  tasks:
    - ansible.builtin.copy: {{content: "{{{{ server_aliases | to_json }}}}", dest: "{told}", mode: "0600"}}
"""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {}),
        ({"LINGBI_GATEWAY_KEY_RATE": 9}, {}),
        ({"LINGBI_GATEWAY_KEY_RATE": 9, "LINGBI_GATEWAY_ALIASES": "a=b"}, {"LINGBI_GATEWAY_ALIASES": "a=b"}),
    ],
)
def test_the_gateways_aliases_are_a_servers_too(controller, tmp_path, settings, told):
    file, play = tmp_path / "told", tmp_path / "play.yml"
    variables = ANSIBLE / "roles/server/vars/main.yml"
    play.write_text(PLAY.format(vars=variables, settings=json.dumps(settings), told=file))
    done = played(controller, tmp_path, "-i", "localhost,", "-c", "local", play)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(file.read_text()) == told
