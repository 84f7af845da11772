"""The life of a lab, in order: brought up, rolled under load, rolled back, broken in every way, and mended.

The tests share one lab and leave it serving, for test_shared_accounts.py, which ends it. People ask picture questions all
the time, and none of their requests may fail, be answered wrongly or be cut, whatever is rolled.
"""

import contextlib
import json
import re
import signal
import subprocess
import time
from urllib.parse import urlsplit

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.ansible.conftest import FAULTS, VERSIONS, faulty
from tests.ansible.lab import accounts, images, signing
from tests.ansible.lab.batches import Batch
from tests.ansible.lab.lab import MODEL, OTHER, OTHER_NAME, ROOT
from tests.ansible.lab.load import HURRY_S, Load
from tests.ansible.lab.load import MODEL as DEMO
from tests.ansible.lab.quickness import expect_quick
from tests.host.archives import DIGESTS

OLD, NEW = VERSIONS
CARRIED = "1.2.0"  # in an archive only
TWO_GATEWAYS = ("gate1", "gpu2")
EJECTED_S = 5
ASKED = 500
LINES = 450  # of a batch: its last ones are answered by what the rollout has brought
LOOK_S = 1  # each look is a process within a host
PAUSE_S = 2.5  # else the askers take both cores, and every rollout waits for them


def asking(lab, pause_s: float = PAUSE_S, **more) -> Load:
    return Load(lab.url(), lab.key, askers=2, pause_s=pause_s, **more)


def expect_spotless(load: Load) -> None:
    assert load.faults == [] and load.counts["right"] > 0, (load.counts, load.faults[:5])


def test_a_bare_lab_can_be_checked(bare_lab):
    """Before anything is installed check mode tells what would be done, and does nothing; with package sources too.

    A host whose SSH key nobody has accepted is a line of the table, as one that is away.
    """
    strict = {"gpu1": {"ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"}}
    unknown = bare_lab.inventory(lingbi_version=OLD, hosts=strict)
    code, said = bare_lab.status(unknown, ANSIBLE_SSH_CONTROL_PATH_DIR=str(bare_lab.folder / "strict"))
    assert code == 1 and re.search("gpu1: cannot be reached over SSH: .*Host key verification failed", said), said
    assert "gate1: has no gateway yet; site brings it up" in said
    sources = {
        "lingbi_docker_repository": "https://docker.invalid",
        "lingbi_nvidia_repository": "https://nvidia.invalid",
    }
    inventory = bare_lab.inventory(lingbi_version=OLD, hosts={"gpu2": {"lingbi_gpus": "all"}}, **sources)
    secrets = sorted((bare_lab.folder / "secrets").iterdir())
    with bare_lab.driver("gpu2", "550.54.15"):
        checked = bare_lab.play("site", inventory, "--check")
    assert checked.status == 0, checked.output
    assert "nvidia-container-toolkit would be installed" in checked.output
    assert sorted((bare_lab.folder / "secrets").iterdir()) == secrets  # no key was made
    assert checked.output.count("the server would roll: nothing was started here yet") == 2
    assert bare_lab.root("gpu1", "sh", "-c", "command -v dockerd || ls /opt/lingbi", check=False) == ""


def test_the_hosts_ssh_keys_are_collected_and_are_their_own(bare_lab):
    """By the commands of docs/rollout.md: the fingerprints here are those that each host has at its console."""
    addresses = [host.address for host in bare_lab.hosts.values()]
    scanned = subprocess.run(["ssh-keyscan", "-t", "ed25519", *addresses], capture_output=True, text=True, check=True)
    keys = bare_lab.folder / "host-keys"
    keys.write_text(scanned.stdout)
    here = subprocess.run(["ssh-keygen", "-lf", keys], capture_output=True, text=True, check=True).stdout
    for name, host in bare_lab.hosts.items():
        own = bare_lab.root(name, "ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub")
        assert f"{own.split()[1]} {host.address} " in here


@pytest.mark.steady_network
def test_site_brings_bare_hosts_to_right_answers(lab):
    assert [(row["host"], row["result"]) for row in lab.brought_up.rows] == [
        ("gpu1", "rolled"),
        ("gpu2", "rolled"),
        ("gate1", "rolled"),
        ("gate1", "rolled"),  # its exporter
    ]
    with asking(lab) as load:
        load.until(10)
    expect_spotless(load)
    code, said = lab.status(lab.inventory(lingbi_version=OLD))
    assert code == 0 and said.count("1/1 ready") == said.count("gate1: serves") == 2, said
    assert "2/2 servers serve" in said and "All is as the inventory declares." in said


def test_everybody_has_a_key_and_a_login_of_their_own(lab):
    key = (lab.folder / "secrets/alice").read_text().strip()
    for headers, status in (({"Authorization": f"Bearer {key}"}, 200), ({"Authorization": "Bearer lb-other"}, 401)):
        assert httpx.get(f"{lab.url()}/v1/models", headers=headers).status_code == status
    for password, is_let_in in ((lab.password, True), ("guessed", False)):
        answer = httpx.post(f"{lab.url()}/login", data={"username": "alice", "password": password})
        assert answer.is_success == is_let_in, answer.text
        time.sleep(1.5)  # the gateway lets one address try once a second
    listed = lab.root("gpu1", "docker", "exec", "lingbi-server-server-1", "lingbi", "key", "list")
    assert "alice" in listed and key not in listed


def test_weights_are_fetched_once_and_spread(lab):
    """One host asked ModelScope; both have the same bytes, whole, and served with them."""
    assert lab.asked_hub == {MODEL: {lab.hosts["gpu1"].address}, OTHER: set()}
    for name in ("gpu1", "gpu2"):
        assert lab.running(name)["weights"] == {MODEL: lab.hub.lock.digest}
    assert "lingbi-weights-share" not in lab.root("gpu1", "docker", "ps", "--all", "--format", "{{.Names}}")


def test_prometheus_finds_gateway_and_servers(lab):
    """By the lists on the controller; a GPU's exporter runs where a GPU is."""
    lists = {file.name: json.loads(file.read_text())[0]["targets"] for file in (lab.folder / "targets").iterdir()}
    assert lists["gateways.yml"] == [f"{lab.hosts['gate1'].address}:9113"] and lists["gpus.yml"] == []
    assert lists["placements.yml"] == [f"{lab.hosts['gate1'].address}:{urlsplit(lab.url()).port}"]
    assert lists["servers.yml"] == [f"{lab.hosts[name].address}:23333" for name in ("gpu1", "gpu2")]
    assert re.search(r"^nginx_up\S* 1$", httpx.get(f"http://{lists['gateways.yml'][0]}/metrics").text, re.M)
    for server in lists["servers.yml"]:
        assert re.search(r"^lingbi_ready\S* 1\.0$", httpx.get(f"http://{server}/metrics").text, re.M)


def restored(lab, inventory):
    """The inventory on another controller, which has the backup that docs/rollout.md describes."""
    assert inventory.name == "lab.yml"
    (command,) = re.findall(r"^\(umask 077 && tar .*\)$", (ROOT / "docs/rollout.md").read_text(), re.M)
    subprocess.run(["bash", "-c", command], cwd=lab.folder, check=True)
    assert (lab.folder / "lab-backup.tar").stat().st_mode & 0o777 == 0o600
    elsewhere = lab.folder / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["tar", "-C", elsewhere, "-xf", lab.folder / "lab-backup.tar"], check=True)
    return elsewhere / inventory.name


@pytest.mark.steady_network
def test_a_second_run_changes_nothing_and_check_mode_agrees(lab):
    inventory = lab.inventory(lingbi_version=OLD)
    before = lab.container("gpu1", "server"), lab.container("gate1", "gateway")
    for source, options in ((inventory, ()), (restored(lab, inventory), ("--check",))):
        again = lab.play("site", source, *options)
        assert (again.status, again.changed) == (0, 0), again.output
    assert before == (lab.container("gpu1", "server"), lab.container("gate1", "gateway"))


def test_secrets_and_settings_are_closed_to_others(lab):
    listed = lab.root("gpu1", "find", "/opt/lingbi/server/live", "-type", "f", "-printf", "%m %u %P\\n").splitlines()
    modes = {line.split()[2]: line.split()[:2] for line in listed}
    assert modes[".env"] == ["600", "root"] and modes["secrets/api-key"] == ["400", "10001"]
    assert lab.key not in lab.brought_up.output
    assert lab.key not in lab.root("gpu1", "cat", "/opt/lingbi/server/live/.env")


def test_the_engines_ask_the_mirror_of_the_inventory_first(lab):
    told = {name: lab.root(name, "docker", "info", "--format", "{{.RegistryConfig.Mirrors}}") for name in lab.hosts}
    assert {mirrors.strip() for mirrors in told.values()} == {f"[http://{lab.subnet}.2:5000/]"}


def test_site_does_not_change_the_version(lab):
    refused = lab.play("site", lab.inventory(lingbi_version=NEW))
    assert refused.status != 0 and f"the fleet runs {OLD}" in refused.output and refused.changed == 0


def test_check_mode_tells_what_a_deploy_would_roll_and_rolls_nothing(lab):
    before = lab.container("gpu1", "server"), lab.container("gate1", "gateway")
    checked = lab.play("deploy", lab.inventory(lingbi_version=OLD), "--check", "-e", f"lingbi_version={NEW}")
    assert checked.status == 0, checked.output
    assert checked.output.count("the server would roll: changed: .env, compose.fleet.yaml") == 2
    assert checked.output.count("the gateway would roll: changed: .env, compose.fleet.yaml") == 1
    assert before == (lab.container("gpu1", "server"), lab.container("gate1", "gateway"))
    assert lab.running("gpu1")["version"] == OLD and "drained" not in lab.upstreams()


def test_an_image_that_is_not_the_signed_one_is_removed_again_and_nothing_is_drained(lab):
    before = lab.container("gpu1", "server"), lab.container("gate1", "gateway")
    signing.sign_digests(lab, NEW, DIGESTS)
    inventory = lab.inventory(lingbi_version=OLD, **signing.trusting(lab))
    bad = lab.play("deploy", inventory, "-e", f"lingbi_version={NEW}")
    said = " ".join(bad.output.split())
    assert bad.status != 0 and bad.rows == [] and f"and {DIGESTS['server']} was signed: it is another image" in said
    assert "was removed again" in said and "nothing that serves requests was touched" in said
    assert NEW not in lab.root("gpu1", "docker", "images", "--format", "{{.Tag}}").split()
    assert before == (lab.container("gpu1", "server"), lab.container("gate1", "gateway"))
    assert "drained" not in lab.upstreams() and not lab.is_held()


@pytest.mark.steady_network
def test_a_drain_that_takes_too_long_stops_the_rollout_and_nothing_else(lab):
    before = lab.container("gpu1", "server"), lab.container("gpu2", "server")
    inventory = lab.inventory(lingbi_version=OLD, lingbi_drain_wait_s=1)
    at_gpu1 = Load(lab.server_url("gpu1"), lab.key, askers=0)  # the gateway might give gpu2 all long answers
    with asking(lab) as load, at_gpu1:
        load.until(5)
        rolling = lab.begin("deploy", inventory, "-e", f"lingbi_version={NEW}")
        assert wait_until(lab.is_held, 120, LOOK_S), rolling.communicate()[0]
        with at_gpu1.asking_long(1200):
            output = rolling.communicate(timeout=300)[0]
    assert rolling.returncode != 0 and "Nothing was stopped." in output, output
    assert re.search(r"answers are still running after \d+ s \(lingbi_drain_wait_s\)", output), output
    assert [(row["host"], row["result"]) for row in lab.summary()] == [("gpu1", "left as it was")]
    expect_spotless(load)
    assert at_gpu1.faults == [] and at_gpu1.counts["long"] > 0, at_gpu1.faults
    assert before == (lab.container("gpu1", "server"), lab.container("gpu2", "server"))
    assert "drained" not in lab.upstreams() and not lab.is_held()


@pytest.mark.steady_network
def test_a_version_is_rolled_under_load_without_losing_a_request(lab):
    """With one answer that takes longer than a hurried operator's own drain, and a second operator who must wait.

    Its images are those that were signed, and are pulled.
    """
    for version in (OLD, NEW):
        signing.sign_digests(lab, version)
    inventory = lab.inventory(lingbi_version=OLD, lingbi_drain_timeout_s=2, **signing.trusting(lab))
    with asking(lab, HURRY_S) as load:
        load.until(10)
        long = [load.ask_long(1200) for _ in range(2)]
        rolling = lab.begin("deploy", inventory, "-e", f"lingbi_version={NEW}")
        assert wait_until(lambda: "drained" in lab.upstreams(), 120, LOOK_S), rolling.communicate()[0]
        second = lab.begin("deploy", inventory, "-e", f"lingbi_version={OLD}", keep_summary=True)
        code, said = lab.status(inventory)
        assert code == 1 and "A rollout holds the lab: " in said, said
        refused = second.communicate(timeout=300)[0]
        output = rolling.communicate(timeout=600)[0]
        load.pause_s = 0.0  # nothing is rolled any more
        load.until(max(ASKED, load.counts.total() + 10))
        for thread in long:
            thread.join()
    assert rolling.returncode == 0, output
    assert f"lingbi_version in the inventory has to be {NEW} too" in output
    assert second.returncode != 0 and re.search(r"started a rollout from .*; wait until it ends", refused), refused
    expect_spotless(load)
    assert load.counts["long"] == 2
    for name in ("gpu1", "gpu2"):
        assert lab.running(name)["version"] == NEW and lab.record(name)[-1]["result"] == "rolled"
        assert "@sha256:" in lab.record(name)[-1]["images"]["server"]
    assert lab.running("gate1", "gateway")["version"] == NEW
    assert "drained" not in lab.upstreams()


@pytest.mark.steady_network
def test_rollback_goes_back_under_load_without_losing_a_request(lab):
    digest = lab.record("gpu1")[0]["images"]["server"]
    checked = lab.play("rollback", lab.inventory(lingbi_version=NEW), "--check")
    assert checked.status == 0 and checked.output.count("the server would roll") == 2, checked.output
    with asking(lab) as load:
        rolled = lab.play("rollback", lab.inventory(lingbi_version=NEW), "-e", f"lingbi_rollback_to={OLD}")
        load.until(load.counts.total() + 10)
    assert rolled.status == 0, rolled.output
    expect_spotless(load)
    lab.turns += rolled.rows
    assert [lab.running(name)["version"] for name in ("gpu1", "gpu2")] == [OLD, OLD]
    assert lab.running("gpu1")["images"]["server"] == digest


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
        assert wait_until(lambda: "drained" in lab.upstreams(), 120, LOOK_S), first.communicate()[0]
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
        assert wait_until(lab.is_held, 120, LOOK_S), rolling.communicate()[0]
        with at_gpu1, at_gpu1.asking_long(1200):
            assert wait_until(lambda: "drained" in lab.upstreams(), 120, LOOK_S), rolling.communicate()[0]
            load.until(load.counts.total() + 10)  # what gpu1 was asked until the gateway had read the list has ended
            lab.cut("gpu1")
            output = rolling.communicate(timeout=300)[0]
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
    assert wait_until(lambda: lab.root(*is_placed, check=False) != "", 180, LOOK_S), rolling.communicate()[0]
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

    A batch that runs on both hosts before goes on through all of it, and runs on both after.
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
        with at_gpu2.asking_long(1200):  # its drain waits for these
            batch = asked.enter_context(Batch(lab, TWO_GATEWAYS, LINES, (DEMO, DEMO, OTHER_NAME)))
            batch.expect_all_at_it()
            assert before == {name: lab.container(name, "server") for name in lab.servers}
        output += rolling.stdout.read()
        assert rolling.wait() == 0, output
        for load in loads:
            load.until(load.counts.total() + 10)
        batch.expect_whole()
        assert all(batch.answered().values()), f"give the batch more lines: {batch.answered()}, {batch.looks}"
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
