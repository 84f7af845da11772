"""Two hosts of a lab on one database: what is changed on one is known on the other, without a restart."""

import contextlib

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.conftest import lingbi, running_worker

REACHES_S = 10.0  # in a lab, from a change on one host to all others


@pytest.fixture
def hosts(postgres, tmp_path):
    """Two workers with state folders of their own, and what names the database to each."""
    (tmp_path / "password").write_text(postgres.password)
    database = {
        "LINGBI_DATABASE_URL": postgres.address,
        "LINGBI_DATABASE_PASSWORD_FILE": str(tmp_path / "password"),
    }
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(running_worker(tmp_path / name, **database)) for name in ("gpu1", "gpu2")]
        yield workers, database


def statuses(workers: list, key: str) -> set:
    headers = {"Authorization": f"Bearer {key}"}
    return {httpx.get(f"{worker['url']}/v1/models", headers=headers).status_code for worker in workers}


def test_a_change_of_the_keys_reaches_all_hosts(hosts, tmp_path):
    workers, database = hosts
    made = lingbi("key", "add", "bob", state_dir=tmp_path / "gpu2", **database)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    assert wait_until(lambda: statuses(workers, key) == {200}, REACHES_S)
    ended = lingbi("key", "revoke", "bob", state_dir=tmp_path / "gpu1", **database)
    assert ended.returncode == 0, ended.stderr
    assert wait_until(lambda: statuses(workers, key) == {401}, REACHES_S)
    assert statuses(workers, workers[0]["key"]) == {200}  # each host's own key is let in on the other
