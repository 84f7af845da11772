"""The role `database` on this machine, with its real engine: it starts, lets in who is listed, starts anew where that changes."""

import pytest
import yaml

from lingbi.accounts.database import Database, DatabaseAway, parse_url
from tests.ansible import variables
from tests.ansible.play import played
from tests.conftest import free_port
from tests.containers.images import docker
from tests.containers.postgres import ensure_postgres

PASSWORD = "the-password-of-this-test"


@pytest.fixture
def run(controller, docker_engine, tmp_path):
    """Plays the role's entry points; the lab is this machine. What it made is removed at the end."""
    defaults = yaml.safe_load(variables.DEFAULTS.read_text())
    port, folder = free_port(), tmp_path / "opt"
    given = {name: value for name, value in defaults.items() if "{{" not in str(value)} | {
        "lingbi_version": "1.0.0",
        "lingbi_directory": str(folder),
        "lingbi_database_image": ensure_postgres(),
        "lingbi_database_port": port,
        "lingbi_run_address": "127.0.0.1",
        "lingbi_run_repository": str(variables.ROOT),
        "lingbi_run_database_password": PASSWORD,
    }

    def play(entry: str = "main", servers=("elsewhere",), **more) -> int:
        """The number of tasks that changed something."""
        call = {"ansible.builtin.include_role": {"name": "database", "tasks_from": entry}}
        (tmp_path / "play.yml").write_text(
            yaml.safe_dump([{"hosts": "lingbi_database", "gather_facts": False, "tasks": [call]}])
        )
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        away = {"lingbi_run_address": "192.0.2.7"}
        groups = {
            "lingbi_database": {"hosts": {"here": local}},
            "lingbi_servers": {"hosts": {name: {} if name == "here" else away for name in servers}},
            "lingbi_gateways": {"hosts": {"here": {}}},
        }
        inventory = {"all": {"vars": given | more, "children": groups}}
        (tmp_path / "lab.yml").write_text(yaml.safe_dump(inventory))
        done = played(controller, tmp_path, "-i", tmp_path / "lab.yml", tmp_path / "play.yml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return int(done.stdout.split("changed=")[1].split()[0])

    play.url = parse_url(f"postgresql://lingbi@127.0.0.1:{port}/lingbi", PASSWORD)
    play.folder = folder
    yield play
    play("remove", database_data_goes=True)
    assert "lingbi-database_database" not in docker("volume", "ls", "--quiet").stdout


def test_a_lab_has_its_database(run):
    assert run() > 0
    secret = run.folder / "database/live/secrets/database-password"
    assert (secret.stat().st_mode & 0o777, secret.stat().st_uid) == (0o400, 999)
    with pytest.raises(DatabaseAway, match="no pg_hba.conf entry"):
        Database(run.url).revision()  # this host is no server
    assert run() == 0
    assert run(servers=("elsewhere", "here")) > 0
    found = Database(run.url)
    found.bring_up_to_date()
    found.engine.dispose()
    assert run("remove") > 0
    assert not run.folder.exists()  # nothing else of lingbi is on this host
    assert docker("ps", "--all", "--quiet", "--filter=name=lingbi-database").stdout == ""
    assert run(servers=("elsewhere", "here")) > 0
    assert Database(run.url).revision()  # its data was kept
