"""Keys and usage that all hosts of a lab share through its database, and the end of the lab: what uninstall leaves.

These follow test_rollout_faults.py on the same lab. Each person here has a key that nobody else uses, so what is counted of
it is what this person was told.
"""

import re

import pytest

from lingbi.launch.supervision import wait_until
from tests.ansible.conftest import VERSIONS
from tests.ansible.lab.accounts import COUNTED_S, DATABASE, REACHES_ALL_S, SERVER, VOLUME, Person, declared, lingbi
from tests.conftest import answers

OLD = VERSIONS[0]
ANSWERS = 6
AWAY_S = 240  # what a server that was killed may take to come back, on a busy machine


@pytest.fixture(scope="module")
def shared(lab):
    """The lab with its database, which test_rollout_faults.py has brought; without that, site brings it."""
    if not lab.container(DATABASE, "postgres"):
        brought = lab.play("site", lab.inventory(lingbi_version=OLD, **declared(lab)))
        assert brought.status == 0, brought.output
    return lab


@pytest.mark.steady_network
def test_a_change_of_a_key_on_one_host_reaches_all_and_nothing_is_started_anew(shared):
    before = [shared.container(host, "server") for host in shared.servers]
    bob = Person.with_key(shared, "gpu1", "bob")
    lingbi(shared, "gpu2", "key", "limit", "bob", "--requests", "2/month")
    assert wait_until(lambda: all(bob.limits_at(host) == [2] for host in shared.servers), REACHES_ALL_S)
    for host in shared.servers:
        assert bob.ask(shared.server_url(host), 0) == 200
    for host in shared.servers:  # each knows what the other has let in, but decides alone where it waited too long
        assert wait_until(lambda host=host: bob.ask(shared.server_url(host), 0) == 429, COUNTED_S)
    lingbi(shared, "gpu1", "key", "revoke", "bob")
    bob.expect_everywhere(401)
    assert before == [shared.container(host, "server") for host in shared.servers]


def test_what_both_hosts_counted_is_what_clients_saw_though_one_was_cut_off_and_killed(shared):
    """To the token, with an answer that a host gave while it could reach no database, and did not live to count."""
    carol, dan = (Person.with_key(shared, "gpu1", name) for name in ("carol", "dan"))
    urls = [shared.url(), *map(shared.server_url, shared.servers)]
    for number in range(ANSWERS):
        assert carol.ask(urls[number % len(urls)], number) == 200
    for host in shared.servers:  # before the cut: each host counts what it answered a second later
        carol.expect_counted(host)
    counted = carol.told.copy()
    shared.cut("gpu2")
    try:
        try:
            carol.ask_within("gpu2")
            lingbi(shared, "gpu1", "key", "revoke", "dan")
            shared.root("gpu2", "docker", "kill", SERVER)
        finally:
            shared.mend("gpu2")
        assert carol.used("gpu1") == counted != carol.told
    finally:
        shared.root("gpu2", "docker", "start", SERVER)
    assert wait_until(lambda: answers(f"{shared.server_url('gpu2')}/ready"), AWAY_S)
    for host in shared.servers:
        carol.expect_counted(host)
    assert carol.reported("gpu1") == {200: carol.told}
    dan.expect_everywhere(401)


def test_uninstall_takes_everything_but_the_weights_and_who_used_what(shared):
    lab, gateways = shared, ("gate1", "gpu2")
    lab.root("gpu1", "sh", "-c", "printf something >/opt/lingbi/somebody")  # it is not lingbi's
    inventory = lab.inventory(lingbi_version=OLD, gateways=gateways, database=DATABASE)
    gone = lab.play("uninstall", inventory)
    assert gone.status == 0, gone.output
    assert lab.root("gpu1", "cat", "/opt/lingbi/somebody") == "something"
    lab.root("gpu1", "rm", "-r", "/opt/lingbi")
    for name in lab.hosts:
        assert lab.root(name, "docker", "ps", "--all", "--quiet") == ""
        assert not re.search(
            r"/(server|ui|gateway)$", lab.root(name, "docker", "image", "ls", "--format={{.Repository}}"), re.M
        )
        assert set(lab.root(name, "ls", "/opt", check=False).split()) <= {"containerd", "lab"}
    kept = {"gpu1": ["lingbi-server_state", "lingbi-server_weights"], DATABASE: [VOLUME]}
    assert {name: volumes(lab, name) for name in kept} == kept
    later = lab.play("uninstall", inventory, "-e", "lingbi_remove_weights=true")
    assert later.status == 0, later.output
    assert {name: volumes(lab, name) for name in kept} == {name: [] for name in kept}


def volumes(lab, name: str) -> list[str]:
    return lab.root(name, "docker", "volume", "ls", "--quiet").split()
