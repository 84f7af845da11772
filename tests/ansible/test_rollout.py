"""The life of a lab, in order: brought up, rolled under load and rolled back.

The tests share one lab with those of test_rollout_faults.py, which follow. People ask picture questions all the time, and
none of their requests may fail, be answered wrongly or be cut, whatever is rolled.
"""

import json
import re
import subprocess
import time
from urllib.parse import urlsplit

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.ansible.conftest import VERSIONS
from tests.ansible.lab import signing
from tests.ansible.lab.lab import BEGINS_S, LOOK_S, MODEL, OTHER, PLAY_S, ROOT, TEST_S
from tests.ansible.lab.load import HURRY_S, LONG, Load, asking, expect_spotless
from tests.host.archives import DIGESTS

OLD, NEW = VERSIONS
ASKED = 500
pytestmark = [pytest.mark.steady_network, pytest.mark.timeout(TEST_S)]  # test_refusals.py has started the hosts


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


def test_a_drain_that_takes_too_long_stops_the_rollout_and_nothing_else(lab):
    before = lab.container("gpu1", "server"), lab.container("gpu2", "server")
    inventory = lab.inventory(lingbi_version=OLD, lingbi_drain_wait_s=1)
    at_gpu1 = Load(lab.server_url("gpu1"), lab.key, askers=0)  # the gateway might give gpu2 all long answers
    with asking(lab) as load, at_gpu1:
        load.until(5)
        rolling = lab.begin("deploy", inventory, "-e", f"lingbi_version={NEW}")
        assert wait_until(lab.is_held, BEGINS_S, LOOK_S), rolling.communicate()[0]
        with at_gpu1.asking_long(LONG):
            output = rolling.communicate(timeout=BEGINS_S)[0]
    assert rolling.returncode != 0 and "Nothing was stopped." in output, output
    assert re.search(r"answers are still running after \d+ s \(lingbi_drain_wait_s\)", output), output
    assert [(row["host"], row["result"]) for row in lab.summary()] == [("gpu1", "left as it was")]
    expect_spotless(load)
    assert at_gpu1.faults == [] and at_gpu1.counts["long"] > 0, at_gpu1.faults
    assert before == (lab.container("gpu1", "server"), lab.container("gpu2", "server"))
    assert "drained" not in lab.upstreams() and not lab.is_held()


def test_a_version_is_rolled_under_load_without_losing_a_request(lab):
    """With one answer that takes longer than a hurried operator's own drain, and a second operator who must wait.

    Its images are those that were signed, and are pulled.
    """
    for version in (OLD, NEW):
        signing.sign_digests(lab, version)
    inventory = lab.inventory(lingbi_version=OLD, lingbi_drain_timeout_s=2, **signing.trusting(lab))
    with asking(lab, HURRY_S) as load:
        load.until(10)
        rolling = lab.begin("deploy", inventory, "-e", f"lingbi_version={NEW}")
        with load.asking_long(LONG):
            assert wait_until(lambda: "drained" in lab.upstreams(), BEGINS_S, LOOK_S), rolling.communicate()[0]
        second = lab.begin("deploy", inventory, "-e", f"lingbi_version={OLD}", keep_summary=True)
        code, said = lab.status(inventory)
        assert code == 1 and "A rollout holds the lab: " in said, said
        refused = second.communicate(timeout=BEGINS_S)[0]
        output = rolling.communicate(timeout=PLAY_S)[0]
        load.pause_s = 0.0  # nothing is rolled any more
        load.until(max(ASKED, load.counts.total() + 10))
    assert rolling.returncode == 0, output
    assert f"lingbi_version in the inventory has to be {NEW} too" in output
    assert second.returncode != 0 and re.search(r"started a rollout from .*; wait until it ends", refused), refused
    expect_spotless(load)
    assert load.counts["long"] > 2
    for name in ("gpu1", "gpu2"):
        assert lab.running(name)["version"] == NEW and lab.record(name)[-1]["result"] == "rolled"
        assert "@sha256:" in lab.record(name)[-1]["images"]["server"]
    assert lab.running("gate1", "gateway")["version"] == NEW
    assert "drained" not in lab.upstreams()


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
