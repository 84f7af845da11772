"""The weights of a new .env are brought beside what runs."""

import json
import os
import signal
import sys

import pytest

from host.errors import Refusal
from host.start import replacement

FOUND = {
    "name": "lingbi",
    "services": {
        "weights": {
            "image": "lingbi/server:1.0.0",
            "restart": "on-failure:3",
            "build": {"context": "/clone", "secrets": [{"source": "ca"}]},
            "environment": {"LINGBI_MODEL": "a$b"},
            "networks": {"outside": None},
            "volumes": [
                {"type": "volume", "source": "weights", "target": "/models"},
                {"type": "bind", "source": "/share/model", "target": "/model"},
            ],
            "secrets": [{"source": "hub-token", "target": "/run/secrets/hub-token"}],
        },
        "server": {"image": "lingbi/server:1.0.0", "depends_on": {"weights": {}}},
    },
    "networks": {"outside": {"name": "lingbi_outside", "ipam": {"config": [{"subnet": "10.1.1.0/26"}]}}, "edge": {}},
    "volumes": {"weights": {"name": "lingbi_weights"}, "state": {"name": "lingbi_state"}},
    "secrets": {"hub-token": {"name": "lingbi_hub-token", "file": "/clone/secrets/hub-token"}, "api-key": {}},
}


HERE = {"lingbi_outside", "lingbi_weights", "lingbi_inside"}


def test_what_the_running_stack_does_not_have_yet_is_made_as_configured():
    """As after a folder of weights, which nothing is fetched into: that stack has no network with a way out."""
    alone = replacement.alone(FOUND, HERE - {"lingbi_outside"})
    assert alone["networks"] == {"outside": FOUND["networks"]["outside"]}


def test_the_service_runs_alone_once_on_the_networks_and_volumes_that_are_there():
    alone = replacement.alone(FOUND, HERE)
    assert "build" not in alone["services"]["weights"]
    assert alone["services"].keys() == {"weights"} and alone["services"]["weights"]["restart"] == "no"
    assert alone["networks"] == {"outside": {"external": True, "name": "lingbi_outside"}}
    assert alone["volumes"] == {"weights": {"external": True, "name": "lingbi_weights"}}
    assert alone["secrets"] == {"hub-token": FOUND["secrets"]["hub-token"]}
    assert json.loads(replacement.text_of(alone))["services"]["weights"]["environment"] == {"LINGBI_MODEL": "a$$b"}
    assert FOUND["services"]["weights"]["restart"] == "on-failure:3"


def test_on_the_hosts_network_it_needs_none():
    weights = {"image": "x", "network_mode": "host", "volumes": []}
    alone = replacement.alone({"name": "lingbi", "services": {"weights": weights}}, HERE)
    assert alone == {"name": "lingbi", "services": {"weights": {**weights, "restart": "no"}}}


@pytest.fixture
def runs(monkeypatch):
    """A function that has a Python program stand in place of Compose."""
    return lambda program: monkeypatch.setattr(replacement, "command", lambda *_: [sys.executable, "-c", program])


def test_lines_are_passed_on_as_they_come_and_a_failure_is_refused(runs):
    told = []
    runs("print('1 of 2 GB', flush=True); raise SystemExit('error: no hub')")
    with pytest.raises(Refusal) as refusal:
        replacement.bring_weights(FOUND, told.append)
    assert str(refusal.value) == "no hub; nothing was changed, and what ran goes on"
    assert told == ["weights 1 of 2 GB", "weights no hub"]
    runs("""print('{"level": "INFO", "message": "the weights are there"}')""")
    replacement.bring_weights(FOUND, told.append)
    assert told[-1] == "weights the weights are there"


def test_what_is_ended_by_ctrl_c_is_interrupted_and_leaves_no_process(runs, tmp_path):
    runs("raise SystemExit(130)")
    with pytest.raises(KeyboardInterrupt):
        replacement.bring_weights(FOUND, print)
    runs(
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(60)"
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replacement.bring_weights(FOUND, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)
