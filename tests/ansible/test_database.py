"""The lab's database: what an inventory may declare, who may connect, and what the images of a compose file are called."""

import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from tests.ansible import variables
from tests.ansible.plugins import load

compose = load("filter_plugins/compose.py")
database = load("filter_plugins/database.py")
settings = load("filter_plugins/settings.py")
URL = "postgresql://lingbi@db.lab:5432/lingbi"


@pytest.fixture
def declared(tmp_path):
    """What an inventory declares, with changes; a password file that is right."""
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    right = {"hosts": [], "others": ["gpu1", "gate1"], "url": "", "password_file": "", "allow": []}
    return lambda **changes: right | {name: value or str(secret) for name, value in changes.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hosts": ["gate1"]},
        {"hosts": ["gate1"], "password_file": None, "allow": ["10.0.0.0/24", "fd00::/8", "10.0.0.9"]},
        {"url": URL, "password_file": None},
        {"url": "postgresql://me@[fd00::1]/accounts?sslmode=verify-full", "password_file": None},
    ],
)
def test_what_a_lab_may_declare_is_accepted(declared, changes):
    assert database.database_faults(declared(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hosts": ["gate1", "gpu1"]}, "lingbi_database: gate1, gpu1: one host keeps the database; name one"),
        ({"hosts": ["db1"]}, "lingbi_database: db1 is in neither lingbi_servers nor lingbi_gateways"),
        ({"hosts": ["gate1"], "url": URL, "password_file": None}, "names a host too; leave one of the two out"),
        ({"url": URL}, "lingbi_database_password_file: lingbi_database_url needs one"),
        ({"url": URL, "password_file": "/nowhere"}, "there is no file /nowhere"),
        ({"url": URL, "password_file": "/dev/null"}, "there is no file /dev/null"),
        ({"url": "postgresql:///lingbi", "password_file": None}, "it names no host"),
        ({"url": "postgresql://db.lab/lingbi", "password_file": None}, "it names no user"),
        ({"url": "postgresql://lingbi:word@db/lingbi", "password_file": None}, "it holds a password"),
        ({"url": "postgresql://lingbi@db/x?password=word", "password_file": None}, "it holds a password"),
        ({"url": "postgresql://lingbi@db.lab", "password_file": None}, "this is no address of a PostgreSQL database"),
        ({"url": "postgresql://lingbi@db.lab:x/lingbi", "password_file": None}, "this is no address of a PostgreSQL"),
        ({"url": "sqlite:////srv/accounts.db", "password_file": None}, "this is no address of a PostgreSQL"),
        ({"url": 7, "password_file": None}, "this is no address of a PostgreSQL"),
        ({"allow": ["10.0.0.5/24"]}, "lingbi_database_allow: 10.0.0.5/24 is no network"),
        ({"allow": ["all"]}, "lingbi_database_allow: all is no network"),
    ],
)
def test_what_would_fail_later_is_refused_by_name(declared, changes, said):
    (fault,) = database.database_faults(declared(**changes))
    assert said in fault and "word@" not in fault and "=word" not in fault


@pytest.mark.parametrize(("text", "mode", "said"), [("", 0o600, "is empty"), ("x", 0o640, "chmod 600")])
def test_a_password_file_that_is_empty_or_open_to_others(tmp_path, text, mode, said):
    file = tmp_path / "password"
    file.write_text(text)
    file.chmod(mode)
    (fault,) = database.password_faults(str(file), True)
    assert said in fault


def test_only_servers_and_named_networks_may_connect_and_only_with_the_password():
    text = database.database_access(["10.0.0.1", "fd00::1", "10.0.0.1"], ["10.9.0.0/16"], is_server=False)
    local, remote = text.splitlines()[:3], text.splitlines()[3:]
    assert remote == [
        f"host lingbi lingbi {part} scram-sha-256" for part in ("10.0.0.1/32", "fd00::1/128", "10.9.0.0/16")
    ]
    assert {line.split()[-1] for line in local} == {"scram-sha-256"}
    beside = database.database_access(["10.0.0.1"], [], is_server=True)
    assert "host lingbi lingbi samenet scram-sha-256" in beside and "samenet" not in text


def test_postgresql_reads_what_was_written(postgres):
    """pg_hba_file_rules tells how it would take the file as it is now."""
    file = postgres.server.data / "pg_hba.conf"
    before = file.read_text()
    text = database.database_access(["10.0.0.1", "fd00::1"], ["10.9.0.0/16"], is_server=True)
    try:
        file.write_text(text + "\n")
        with Database(postgres.url).read() as connection:
            rules = connection.execute(sa.text("SELECT address, auth_method, error FROM pg_hba_file_rules")).all()
    finally:
        file.write_text(before)
    assert len(rules) == len(text.splitlines()) and {rule.error for rule in rules} == {None}
    assert {rule.address for rule in rules} >= {"samenet", "10.0.0.1", "fd00::1", "10.9.0.0"}


def test_its_address_is_one_that_the_server_takes():
    for address in ("10.0.0.1", "db.lab", "fd00::1"):
        url = parse_url(database.database_url(address, 5433), "secret")
        assert (url.host, url.port, url.username, url.database) == (address, 5433, "lingbi", "lingbi")


def test_an_inventorys_settings_may_not_name_another_database():
    given = {"LINGBI_DATABASE_URL": URL}
    (fault,) = settings.setting_faults(given, "lingbi_settings", variables.ROOT)
    assert fault == "lingbi_settings: LINGBI_DATABASE_URL: the playbooks set it; leave it out"


def test_an_image_is_named_as_compose_would_name_it():
    images = compose.compose_images(variables.ROOT / "compose.yaml")
    assert images["postgres"].startswith("library/postgres:") and images["nginx-exporter"].startswith("nginx/")
    assert images["server"] == "lingbi/server:" + (variables.ROOT / "VERSION").read_text().strip()
    assert not any("$" in image for image in images.values())
