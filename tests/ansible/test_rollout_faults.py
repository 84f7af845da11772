"""The lab of test_rollout.py goes on: broken in every way, mended, and grown.

The tests leave it serving, for test_shared_accounts.py, which ends it. People ask all the time here too.
"""

import contextlib
import re
import signal
import time

import pytest

from lingbi.launch.supervision import wait_until
from tests.ansible.conftest import FAULTS, VERSIONS, faulty
from tests.ansible.lab import accounts, images, signing
from tests.ansible.lab.batches import Batches
from tests.ansible.lab.lab import BEGINS_S, LOOK_S, MODEL, OTHER, OTHER_NAME, TEST_S
from tests.ansible.lab.load import HURRY_S, LONG, PAUSE_S, Load, asking, expect_spotless
from tests.ansible.lab.load import MODEL as DEMO
from tests.ansible.lab.quickness import expect_quick

OLD, NEW = VERSIONS
CARRIED = "1.2.0"  # in an archive only
TWO_GATEWAYS = ("gate1", "gpu2")
EJECTED_S = 5
pytestmark = pytest.mark.timeout(TEST_S)


@pytest.mark.steady_network
@pytest.mark.parametrize("fault", [*FAULTS, "missing"])
def test_a_bad_version_stops_at_the_first_host_and_the_old_one_serves(lab, fault):
    untouched = lab.container("gpu2", "server"), lab.container("gate1", "gateway")
    with asking(lab) as load:
        load.until(5)
        wait_s = 15 if fault == "silent" else 60  # the others end before it
        inventory = lab.inventory(lingbi_version=OLD, lingbi_ready_wait_s=wait_s)
        bad = lab.play("deploy", inventory, "-e", f"lingbi_version={faulty(fault)}")
        load.until(load.counts.total() + 8)
    assert bad.status != 0
    expect_spotless(load)
    assert untouched == (lab.container("gpu2", "server"), lab.container("gate1", "gateway"))
    assert lab.running("gpu1")["version"] == OLD and "drained" not in lab.upstreams()
    assert not lab.is_held()  # free for whoever comes
    if fault == "missing":
        assert "could not be fetched" in bad.output and bad.rows == []
    else:
        assert f"Version {OLD} serves again, and no other host was touched." in bad.output
        assert (bad.rows[0]["host"], bad.rows[0]["result"]) == ("gpu1", "returned")
        assert lab.record("gpu1")[-1]["result"] == "returned"
    if fault == "crashing":
        assert "this version is broken" in bad.output and "`scripts/lab status` shows what each host runs" in bad.output
        code, said = lab.status(inventory)
        assert code == 0 and f"{OLD} -> {NEW}-crashing: returned" in said, said
        back = lab.play("rollback", inventory)
        assert back.status != 0 and f"which failed: everything runs {OLD}" in back.output and back.changed == 0
    if fault == "wrong":
        assert "FAIL" in bad.output and "wrong answer" in bad.output


@pytest.mark.steady_network
def test_a_gateway_that_does_not_start_leaves_the_old_one_serving(lab):
    before = lab.container("gate1", "gateway"), lab.container("gpu1", "server")
    inventory = lab.inventory(lingbi_version=OLD, lingbi_gateway_settings={"LINGBI_GATEWAY_KEY_RATE": 0})
    with asking(lab) as load:
        bad = lab.play("site", inventory)
        load.until(load.counts.total() + 10)
    assert bad.status != 0 and f"Version {OLD} serves again." in bad.output, bad.output
    assert "LINGBI_GATEWAY_KEY_RATE='0': give a whole number from 1" in bad.output
    assert [(row["host"], row["unit"], row["result"]) for row in bad.rows] == [("gate1", "gateway", "returned")]
    expect_spotless(load)
    assert before == (lab.container("gate1", "gateway"), lab.container("gpu1", "server"))


def changed(lab, **variables):
    """The inventory with another setting of the servers, which they have from here on."""
    return lab.inventory(lingbi_version=OLD, lingbi_settings=lab.settings | {"LINGBI_MAX_PICTURES": 7}, **variables)


@pytest.mark.steady_network
def test_a_killed_rollout_of_settings_leaves_nothing_drained_once_a_second_run_has_ended(lab):
    """Changed settings roll as a version does, and nothing else restarts."""
    gateway = lab.container("gate1", "gateway")
    with asking(lab) as load:
        first = lab.begin("site", changed(lab), start_new_session=True)
        assert wait_until(lambda: "drained" in lab.upstreams(), BEGINS_S, LOOK_S), first.communicate()[0]
        time.sleep(2)  # somewhere between stop and start
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = lab.play("site", changed(lab))
        load.until(load.counts.total() + 10)
    assert second.status == 0, second.output
    expect_spotless(load)
    lab.turns += second.rows
    assert (second.rows[-1]["host"], second.rows[-1]["why"]) == ("gpu2", "changed: .env")
    for name in ("gpu1", "gpu2"):
        assert re.search(r"^LINGBI_MAX_PICTURES='?7'?$", lab.root(name, "cat", "/opt/lingbi/server/live/.env"), re.M)
    assert "drained" not in lab.upstreams() and lab.container("gate1", "gateway") == gateway


def test_a_host_that_is_cut_off_stops_a_rollout_and_site_brings_it_back(lab):
    # Its drain takes long; what it was asked is lost with it, and is not waited for.
    at_gpu1 = Load(lab.server_url("gpu1"), lab.key, askers=0, patience_s=EJECTED_S)
    with asking(lab) as load:
        load.until(10)
        rolling = lab.begin("deploy", changed(lab), "-e", f"lingbi_version={NEW}")
        assert wait_until(lab.is_held, BEGINS_S, LOOK_S), rolling.communicate()[0]
        with at_gpu1, at_gpu1.asking_long(LONG):
            assert wait_until(lambda: "drained" in lab.upstreams(), BEGINS_S, LOOK_S), rolling.communicate()[0]
            load.until(load.counts.total() + 10)  # what gpu1 was asked until the gateway had read the list has ended
            lab.cut("gpu1")
            output = rolling.communicate(timeout=BEGINS_S)[0]
            load.until(load.counts.total() + 8)
            code, said = lab.status(changed(lab))
            assert code == 1 and re.search(r"^gpu1 +server +\S+ +\?$", said, re.M), said
            assert "gpu1: cannot be reached over SSH" in said and re.search(r"^gpu2 .* 1/1 ready ", said, re.M), said
            lab.mend("gpu1")
        assert rolling.returncode != 0 and re.search(r"gpu1 .*unreachable", output), output
        assert lab.running("gpu2")["version"] == OLD
        back = lab.play("site", changed(lab))
    assert back.status == 0, back.output
    expect_spotless(load)  # gpu1 was drained
    assert lab.running("gpu1")["version"] == OLD and "drained" not in lab.upstreams()


@pytest.mark.steady_network
def test_a_killed_deploy_is_told_as_it_is_and_rolled_back(lab):
    """The controller is gone before it hears that the first host runs the new version; that host has recorded it."""
    rolling = lab.begin("deploy", changed(lab), "-e", f"lingbi_version={NEW}", start_new_session=True)
    is_placed = ("gpu1", "grep", f"^LINGBI_VERSION={NEW}$", "/opt/lingbi/server/live/.env")
    assert wait_until(lambda: lab.root(*is_placed, check=False) != "", BEGINS_S, LOOK_S), rolling.communicate()[0]
    rolling.send_signal(signal.SIGKILL)  # the new version has just begun to start
    rolling.wait()
    with asking(lab) as load:
        back = lab.play("rollback", changed(lab))
        load.until(load.counts.total() + 8)
    assert back.status == 0, back.output
    expect_spotless(load)
    ran = [entry["version"] for entry in lab.record("gpu1") if entry["result"] == "rolled"]
    assert ran[-2:] == [NEW, OLD] and lab.record("gpu2")[-1]["version"] == OLD, ran
    assert [(row["host"], row["before"], row["version"]) for row in back.rows] == [("gpu1", NEW, OLD)]
    assert lab.status(changed(lab))[0] == 0


def test_a_host_that_is_cut_off_is_ejected(lab):
    with asking(lab, HURRY_S, patience_s=2 * EJECTED_S) as load:
        load.until(20)
        lab.cut("gpu2")
        time.sleep(EJECTED_S)
        ejected = time.monotonic()
        load.until(load.counts.total() + 40)
        lab.mend("gpu2")
    since = [seconds for begun, seconds in load.seconds.items() if begun > ejected]
    # Lost are those that were on their way to it, whenever that is told, and none that began later.
    assert len(load.faults) <= load.askers and all(begun < ejected for *_, begun in load.faults), load.faults
    assert len(since) >= 40 - load.askers and max(since) < EJECTED_S, since
    assert lab.play("smoke", changed(lab)).status == 0


def said_until(process, beginning: str) -> str:
    """What a playbook says until a line begins like this."""
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(beginning):
            return said
    raise AssertionError(said)


def with_both_models(lab, name, **variables):
    """The inventory that gives the second model to this host beside the first one, which all hosts have."""
    return changed(lab, gateways=TWO_GATEWAYS, hosts={name: {"lingbi_model": f"{MODEL},{OTHER}"}}, **variables)


@pytest.mark.steady_network
def test_a_second_gateway_and_a_second_model_join(lab):
    """The model on the host that the inventory gives it to, and nowhere else; the other one is answered meanwhile.

    The lab has one database for its accounts from here on, so both hosts' settings change.
    """
    inventory = with_both_models(lab, "gpu1", **accounts.declared(lab))
    with asking(lab) as load:
        joined = lab.play("site", inventory)
        load.until(load.counts.total() + 10)
    assert joined.status == 0, joined.output
    expect_spotless(load)
    assert [(row["host"], row["unit"]) for row in joined.rows] == [
        (accounts.DATABASE, "database"),
        ("gpu1", "server"),
        ("gpu2", "server"),
        ("gpu2", "gateway"),
        ("gpu2", "agents"),
    ]
    said = " ".join(joined.output.split())
    assert f"{MODEL}: answered throughout, by gpu1, gpu2" in said and f"{OTHER}: is new, on gpu1" in said
    assert lab.asked_hub[OTHER] == {lab.hosts["gpu1"].address}
    assert sorted(lab.running("gpu1")["weights"]) == [OTHER, MODEL] and list(lab.running("gpu2")["weights"]) == [MODEL]
    assert f"{lab.hosts['gpu1'].address}:23334; # gpu1 model={OTHER_NAME}" in lab.upstreams("gpu2")
    code, told = lab.status(inventory)
    assert code == 0 and "2/2 ready" in told and f"{OTHER_NAME}: gpu1 1/1 ready\n" in told, told


@pytest.mark.steady_network
def test_a_signed_archive_rolls_behind_both_gateways_while_a_model_moves_to_another_host(lab):
    """Who gets the model has its turn first, so that it is answered throughout; it fetches the weights, which it needs now.

    Batches run on both hosts before, go on through all of it, and run on both after.
    """
    images.build_product(images.PREFIX, CARRIED)
    carried = {"lingbi_image_archive": str(signing.bundle(lab, CARRIED)), **signing.trusting(lab)}
    inventory = with_both_models(lab, "gpu2", **carried, **accounts.declared(lab))
    loads = [asking(lab), *(Load(lab.url("gpu2"), lab.key, 1, PAUSE_S, model=model) for model in (DEMO, OTHER_NAME))]
    at_gpu2 = Load(lab.server_url("gpu2"), lab.key, askers=0)
    before = {name: lab.container(name, "server") for name in lab.servers}
    with contextlib.ExitStack() as asked:
        for load in (*loads, at_gpu2):
            asked.enter_context(load)
        rolling = lab.begin("deploy", inventory, "-e", f"lingbi_version={CARRIED}")
        output = said_until(rolling, "PLAY [Decide the order of the model servers]")
        with at_gpu2.asking_long(LONG):  # its drain waits for these
            batches = asked.enter_context(Batches(lab, TWO_GATEWAYS, (DEMO, DEMO, OTHER_NAME)))
            batches.expect_all_at_it()
            assert before == {name: lab.container(name, "server") for name in lab.servers}
        output += rolling.stdout.read()
        assert rolling.wait() == 0, output
        for load in loads:
            load.until(load.counts.total() + 10)
        batches.expect_all_at_it()  # by what the rollout has brought
        batches.end()
    rows = [row for row in lab.summary() if row["unit"] == "server"]
    for load in loads:
        expect_spotless(load)
    assert at_gpu2.faults == [] and [row["host"] for row in rows] == ["gpu2", "gpu1"]
    assert f"{OTHER}: answered throughout, by gpu1, gpu2" in " ".join(output.split())
    assert lab.asked_hub[OTHER] == {lab.hosts[name].address for name in ("gpu1", "gpu2")}
    assert [line.split()[-1] for line in lab.upstreams().splitlines()[1:]] == [
        f"model={name}" for name in (DEMO, DEMO, OTHER_NAME)
    ]
    for name, unit in (("gpu1", "server"), ("gpu2", "server"), ("gate1", "gateway"), ("gpu2", "gateway")):
        assert lab.running(name, unit)["version"] == CARRIED
    assert lab.upstreams("gpu2") == lab.upstreams("gate1") and lab.upstreams().count(":23333") == 2


def test_a_rolled_host_was_away_for_little_longer_than_its_stop_and_start_took(lab):
    """In the rollouts above that nothing held up."""
    expect_quick(lab.turns)
