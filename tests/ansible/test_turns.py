"""In which order the servers of a lab with several models roll, and what is said of each model before it starts."""

import random
import re

import pytest
import yaml

from tests.ansible import variables
from tests.ansible.play import played
from tests.ansible.plugins import load

turns = load("filter_plugins/turns.py")


def host(name, before, after=None, is_due=True, seconds=40.0):
    """A host by the first letters of its models: before "ab", after "a"."""
    after = before if after is None else after
    return {"name": name, "is_due": is_due, "before": list(before), "after": list(after), "seconds": seconds}


@pytest.mark.parametrize(
    ("hosts", "serial", "batches"),
    [
        ([host("1", "a"), host("2", "a"), host("3", "a")], 1, [["1"], ["2"], ["3"]]),
        ([host("1", "a"), host("2", "a"), host("3", "a"), host("4", "a")], 3, [["1"], ["2", "3", "4"]]),
        ([host("1", "", "a"), host("2", "", "a"), host("3", "", "b")], 2, [["1"], ["2", "3"]]),  # nothing serves yet
        ([host("1", "a"), host("2", "a", is_due=False), host("3", "a")], 1, [["2"], ["1"], ["3"]]),
        # Two of one model never go together where the model has no third; another model's host goes beside.
        ([host("1", "a"), host("2", "b"), host("3", "b"), host("4", "a")], 4, [["1"], ["2", "4"], ["3"]]),
        # A model moves from the first host to the second, which gets it first.
        ([host("1", "ab", "a"), host("2", "a", "ab")], 1, [["2"], ["1"]]),
        ([host("1", "b", "c"), host("2", "a", "b"), host("3", "a")], 1, [["2"], ["1"], ["3"]]),
        # Each waits for the other: one goes nevertheless.
        ([host("1", "a", "b"), host("2", "b", "a")], 1, [["1"], ["2"]]),
        # Of ten hosts 20 % may be away; of the two that have a model, one.
        ([*(host(str(n), "a") for n in range(8)), host("8", "b"), host("9", "b")], "20%", None),
    ],
)
def test_a_model_is_never_away_where_another_host_holds_it(hosts, serial, batches):
    found = turns.turns(hosts, serial)
    assert batches is None or found == batches
    assert sorted(sum(found, [])) == sorted(item["name"] for item in hosts)
    assert_answered(hosts, found)


def assert_answered(hosts, batches):
    """Wherever a model has a second host that could answer meanwhile, somebody answers in every batch."""
    by_name, now = {item["name"]: item for item in hosts}, {item["name"]: item["before"] for item in hosts}
    for names in batches:
        away = [name for name in names if by_name[name]["is_due"]]
        answering = {model for name, models in now.items() if name not in away for model in models}
        for model in {model for name in away for model in by_name[name]["before"]}:
            keepers = [item for item in hosts if model in item["before"] and model in item["after"]]
            assert model in answering or len(keepers) < 2, (model, names, batches)
        now |= {name: by_name[name]["after"] for name in names}


def test_simulated_labs_of_many_models_keep_every_model_that_two_hosts_keep():
    """500 labs by chance: hosts of one to three models, some of which move, with every kind of `serial`."""
    chance = random.Random(29)
    for _ in range(500):
        models = "abcd"[: chance.randint(1, 4)]
        hosts = []
        for number in range(chance.randint(1, 12)):
            before = chance.sample(models, chance.randint(1, min(3, len(models))))
            after = chance.sample(models, chance.randint(1, len(models))) if chance.random() < 0.3 else before
            hosts.append(host(f"h{number}", before, after, is_due=after != before or chance.random() < 0.8))
        serial = chance.choice([1, 2, 5, "10%", "50%", "100%"])
        batches = turns.turns(hosts, serial)
        assert sorted(sum(batches, [])) == sorted(item["name"] for item in hosts)
        assert_answered(hosts, batches)
        due = [names for names in batches if next(item for item in hosts if item["name"] == names[0])["is_due"]]
        assert all(len(names) <= turns.share(serial, len(hosts)) for names in due) and all(len(n) == 1 for n in due[:1])


def test_it_is_said_before_a_rollout_which_models_will_be_away_and_for_how_long():
    hosts = [host("gpu1", "ac", "ad", seconds=41.4), host("gpu2", "a"), host("gpu3", "b", seconds=30.0)]
    assert turns.outlook(hosts, 1) == [
        "a: answered throughout, by gpu1, gpu2",
        "c: ends with this rollout; the inventory gives it to no host, and gpu1 served it",
        "d: is new, on gpu1",
        "b: away during the turn of gpu3, about 30 s by the last turns; only gpu3 has it",
    ]


def test_a_model_that_two_hosts_swap_is_away_until_the_second_has_it():
    hosts = [host("gpu1", "a", "b", seconds=40.0), host("gpu2", "b", "a", seconds=None)]
    first, second = turns.outlook(hosts, 1)
    assert first.startswith("a: away during the turn of gpu1, gpu2, for as long as the server takes to start")
    assert first.endswith("gpu1 had it, gpu2 will") and second == "b: answered throughout, by gpu1, gpu2"


def test_a_rollout_in_which_nothing_rolls_says_nothing():
    assert turns.outlook([host("gpu1", "a", is_due=False)], 1) == [] == turns.outlook([], 1)


STATE = {"needs": True, "containers": {"server": {"state": "running", "health": "healthy"}}}


def test_ansible_gives_the_hosts_their_turns_in_the_order_that_was_decided(controller, tmp_path):
    """The plays of roll.yml themselves, with hosts of which each serves what its record says, and nothing to roll there."""
    moves = {"gpu1": ("demo,vl-7b", "demo"), "gpu2": ("demo", "demo,vl-7b"), "gpu3": ("4khd-7b", "4khd-7b")}
    servers = {
        name: {"lingbi_model": after, "server_state": STATE | {"running": {"model": before, "seconds": {"start": 30}}}}
        for name, (before, after) in moves.items()
    }
    groups = {"lingbi_servers": {"hosts": servers}, "lingbi_gateways": {"hosts": {"gate1": {}}}}
    common = {"docker_is_behind": False, "lingbi_serial": 2, "lingbi_version": "1.0.0", "ansible_connection": "local"}
    (tmp_path / "lab.yml").write_text(yaml.safe_dump({"all": {"vars": common, "children": groups}}))
    decide, roll = yaml.safe_load((variables.ROOT / "ansible/playbooks/roll.yml").read_text())[:2]
    roll["tasks"] = [
        {"ansible.builtin.debug": {"msg": "now {{ ansible_play_batch | join(' and ') }}"}, "run_once": True}
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([decide, roll]))
    done = played(controller, tmp_path, "-i", tmp_path / "lab.yml", tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"now ([\w ]+)", done.stdout) == ["gpu2", "gpu1 and gpu3"]
    said = " ".join(done.stdout.split())
    assert '"vl-7b: answered throughout, by gpu1, gpu2"' in said
    assert "4khd-7b: away during the turn of gpu1, gpu3, about 30 s by the last turns" in said
