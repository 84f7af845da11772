"""The service `postgres` as compose.yaml has it: closed, bounded, kept; beside a server, and alone for a lab."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from host.start import up
from lingbi.accounts.database import HEAD, Database, DatabaseAway, parse_url
from lingbi.accounts.tables import groups
from tests.ansible.plugins import load
from tests.compose.conftest import copy_repository, new_stack
from tests.conftest import free_port
from tests.containers.images import docker, inspect, worrying
from tests.containers.postgres import REGISTRY, ensure_postgres

access = load("filter_plugins/database.py").database_access
EXPECTED = {
    "terminating connection due to administrator command": "of a test's own connection, at the end",
    "database system was not properly shut down": "a test has killed it",
}


@pytest.fixture(scope="module")
def new_root(docker_engine, tmp_path_factory):
    """Makes a copy of the repository with the passwords that scripts/up makes; each stack has its own."""
    ensure_postgres()

    def make() -> Path:
        folder = copy_repository(tmp_path_factory.mktemp("database") / "copy")
        up.make_secrets(folder / "secrets", ("grafana-password", "database-password"))
        return folder

    return make


@pytest.fixture(scope="module")
def stack(new_root):
    with new_stack(
        new_root(), LINGBI_BASE_REGISTRY=REGISTRY, COMPOSE_FILE="compose.yaml:compose.postgres.yaml"
    ) as stack:
        stack.compose("up", "--wait", "postgres")
        yield stack


def database(stack, password: str | None = None) -> Database:
    """The service's database, as a container on its network would reach it; the networks without a way out are this machine's."""
    [network] = inspect(stack.container("postgres"))["NetworkSettings"]["Networks"].values()
    secret = (stack.root / "secrets/database-password").read_text().strip()
    return Database(parse_url(f"postgresql://lingbi@{network['IPAddress']}:5432/lingbi", password or secret))


def names(found: Database) -> list:
    with found.read() as connection:
        return list(connection.execute(sa.select(groups.c.name)).scalars())


def test_it_holds_the_tables_and_refuses_who_has_no_password(stack):
    found = database(stack)
    found.bring_up_to_date()
    assert found.revision() == HEAD
    with pytest.raises(DatabaseAway, match="password authentication failed"):
        database(stack, "wrong").revision()
    found.engine.dispose()


def test_what_it_holds_outlives_an_end_a_kill_and_a_new_container(stack):
    found = database(stack)
    with found.begin() as connection:
        connection.execute(groups.insert().values(name="students"))
    docker("kill", stack.container("postgres"))
    stack.compose("up", "--wait", "postgres")
    assert names(database(stack)) == ["students"]
    stack.compose("stop", "postgres")
    assert inspect(stack.container("postgres"))["State"]["ExitCode"] == 0
    assert worrying(stack.compose("logs", "--no-log-prefix", "postgres").stdout, EXPECTED) == []
    assert stack.script("down").returncode == 0 and stack.container("postgres") == ""
    stack.compose("up", "--wait", "postgres")
    assert names(database(stack)) == ["students"]


def test_alone_for_a_lab_only_those_in_its_list_may_connect(new_root):
    """Connections of this host come from Docker's network of the database: `samenet`, for a server on the same host."""
    root, port = new_root(), free_port()
    secret = (root / "secrets/database-password").read_text().strip()
    url = parse_url(f"postgresql://lingbi@127.0.0.1:{port}/lingbi", secret)
    values = {"LINGBI_DATABASE_ADDRESS": "127.0.0.1", "LINGBI_DATABASE_PORT": port, "LINGBI_BASE_REGISTRY": REGISTRY}
    files = "compose.yaml:compose.database-host.yaml"
    hba = root / "secrets/pg-hba"
    hba.write_text(access(["192.0.2.7"], [], is_server=False) + "\n")
    with new_stack(root, COMPOSE_FILE=files, **values) as alone:
        alone.compose("up", "--wait", "postgres")
        with pytest.raises(DatabaseAway, match="no pg_hba.conf entry"):
            Database(url).revision()
        hba.write_text(access(["192.0.2.7"], [], is_server=True) + "\n")
        alone.compose("exec", "-T", "postgres", "sh", "-c", "kill -HUP 1")
        found = Database(url)
        found.bring_up_to_date()
        found.engine.dispose()
