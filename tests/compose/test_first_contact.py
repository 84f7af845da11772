"""`docker compose up --wait` in a fresh clone without .env and secrets, and what an older clone brings along."""

import json
import os
import re
import shutil
import subprocess
import uuid

import httpx
import pytest

from host.env_file import changed, parse
from tests.compose.conftest import Stack, copy_repository, new_stack
from tests.compose.test_stack import block, smoke
from tests.conftest import ROOT, free_port
from tests.containers import images
from tests.containers.bases import ensure_stand_in, external_bases
from tests.containers.images import docker, inspect, worrying
from tests.containers.subnets import free_subnet
from tests.images.conftest import EXPECTED, logs

CPU = ("-f", "compose.yaml", "-f", "compose.cpu.yaml")
BASES = "compose.bases.yaml"  # of the tests: no base image can be pulled
BUILT = [f"lingbi/{name}:{(ROOT / 'VERSION').read_text().strip()}" for name in images.NAMES]


def with_stand_ins(name: str) -> dict:
    """What a service's build takes in place of its bases."""
    bases = external_bases(ROOT / "docker" / name / "Dockerfile")
    return {"build": {"additional_contexts": {base: f"docker-image://{ensure_stand_in(base)}" for base in bases}}}


@pytest.fixture(scope="module")
def fresh(all_images, tmp_path_factory):
    """A fresh clone, brought up by Compose alone. The shell chooses its project, network and port, as many clones run here."""
    root = copy_repository(tmp_path_factory.mktemp("fresh"))
    builds = {name: with_stand_ins(name) for name in images.NAMES}
    (root / BASES).write_text(json.dumps({"services": builds | {"weights": builds["server"]}}))
    project, port = f"lingbi-test-{uuid.uuid4().hex[:6]}", free_port()
    chosen = {"COMPOSE_PROJECT_NAME": project, "LINGBI_SUBNET": free_subnet(), "LINGBI_GATEWAY_PORT": str(port)}
    chosen["LINGBI_CA_FILE"] = str(images.AUTHORITIES)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}

    def compose(*arguments) -> subprocess.CompletedProcess:
        command = ["docker", "compose", *CPU, "-f", BASES, *arguments]
        return subprocess.run(command, cwd=root, env=inherited | chosen, capture_output=True, text=True, timeout=900)

    stack = Stack(root, project, port)
    stack.compose = lambda *arguments, check=True: compose(*arguments)
    stack.first = compose("up", "--wait")
    yield stack
    compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")


def test_it_comes_up_with_nothing_else_done(fresh, tmp_path):
    assert fresh.first.returncode == 0, fresh.first.stderr + fresh.compose("logs").stdout
    assert not (fresh.root / ".env").exists() and not (fresh.root / "secrets").exists()
    done = smoke(fresh, tmp_path)
    assert done.returncode == 0 and "FAIL" not in done.stderr, done.stderr


def test_missing_images_were_built_as_the_tests_own_are(fresh):
    for built in BUILT:
        assert inspect(built)["Config"]["Labels"]["org.opencontainers.image.title"].startswith("lingbi")


def test_the_logs_say_the_address_the_key_and_a_line_that_works(fresh):
    said = logs(fresh.container("gateway"))
    assert f"lingbi answers at {fresh.url} (page) and {fresh.url}/v1 (API)" in said
    key = re.search(r"the API key: (docker compose .*)", said)[1]
    assert key == "docker compose exec -T server lingbi key show" and fresh.key.startswith("lb-")
    line = re.search(r"^try it: (.*)$", said, re.M)[1].replace(key, f"echo {fresh.key}")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert json.loads(done.stdout)["data"][0]["id"] == "internlm-xcomposer2-demo", done.stdout + done.stderr
    last = fresh.compose("logs", "--no-log-prefix", "weights").stdout.splitlines()[-1]
    assert "the weights are there; `docker compose logs gateway` says how to call the server" in last


def test_no_key_is_in_an_environment_and_the_page_has_only_its_own(fresh):
    for service in ("server", "ui", "gateway"):
        assert fresh.key not in json.dumps(inspect(fresh.container(service)))
    mounted = {mount["Name"] for mount in inspect(fresh.container("ui"))["Mounts"] if mount["Type"] == "volume"}
    assert f"{fresh.project}_page-key" in mounted and f"{fresh.project}_state" not in mounted


def test_the_gateway_follows_the_servers_own_list(fresh):
    """Another number of workers, as after another GPU: nobody tells the gateway."""
    listed = "/var/lib/lingbi-workers/workers.conf"
    before = docker("exec", fresh.container("server"), "cat", listed).stdout
    [own] = before.splitlines()
    more = own.replace(":23333", ":23399")
    docker("exec", fresh.container("server"), "sh", "-c", f"echo '{own}\n{more} # nobody' > {listed}")
    try:
        reloaded = f"{fresh.project}: reload"
        for _ in range(60):
            seen = {httpx.get(f"{fresh.url}/live").status_code for _ in range(4)}
            log = logs(fresh.container("gateway"))
            if ":23399" in log:
                break
        assert seen == {200} and ":23399" in log, reloaded
    finally:
        docker("exec", fresh.container("server"), "sh", "-c", f"echo '{own}' > {listed}")


def test_the_first_start_says_nothing_unexpected(fresh):
    expected = EXPECTED | {
        r"\[error\].*(connect\(\) failed|no live upstreams)": "a server that is not there was listed"
    }
    expected |= {r"\[warn\].*upstream server temporarily disabled": "a server that is not there was listed"}
    for service in ("weights", "server", "ui", "gateway"):
        assert worrying(logs(fresh.container(service)), expected) == [], service


def test_down_and_up_keep_key_and_weights(fresh, tmp_path):
    key = fresh.key
    fresh.compose("down")
    assert fresh.compose("up", "--wait").returncode == 0
    del fresh.key
    assert fresh.key == key and smoke(fresh, tmp_path).returncode == 0


def test_scripts_up_adopts_it(fresh):
    """The same project, the same volumes: the same key."""
    key, port = fresh.key, str(fresh.port)
    chosen = {"COMPOSE_PROJECT_NAME": fresh.project, "LINGBI_GATEWAY_PORT": port}
    subnet = inspect(fresh.container("server"))["NetworkSettings"]["Networks"][f"{fresh.project}_inside"]["IPAddress"]
    chosen |= {"LINGBI_SUBNET": subnet.rpartition(".")[0], "COMPOSE_FILE": "compose.yaml:compose.cpu.yaml"}
    (fresh.root / ".env").write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
    before = fresh.container("server")
    done = Stack(fresh.root, fresh.project, fresh.port).up()
    assert done.returncode == 0, done.stderr
    again = Stack(fresh.root, fresh.project, fresh.port)
    assert again.key == key and (again.container("server") == before or again.container("server"))
    assert "LINGBI_GATEWAY_SERVERS" not in parse((fresh.root / ".env").read_text())


def test_a_misspelt_setting_stops_the_start_by_name(all_images, tmp_path_factory):
    root = copy_repository(tmp_path_factory.mktemp("misspelt"))
    with new_stack(root, LINGBI_GATEWAY_PROT="6006", LINGBI_MODLE="demo") as stack:
        done = stack.compose("up", "--wait", check=False)
        said = stack.compose("logs").stdout
        assert done.returncode != 0 and "LINGBI_MODLE='demo': there is no such setting" in said, said


@pytest.fixture(scope="module")
def older(all_images, tmp_path_factory):
    """A clone with the .env and the secrets of version 0.1.0, whose server has kept its volume of keys."""
    root = copy_repository(tmp_path_factory.mktemp("older"))
    (root / "secrets").mkdir(mode=0o700)
    for name in ("api-key", "ui-key", "grafana-password"):
        (root / "secrets" / name).write_text(f"lb-{name}-of-version-0.1.0\n")
    with new_stack(root) as stack:
        yield stack


def status(stack, key: str) -> int:
    return httpx.get(f"{stack.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def test_keys_in_files_go_on_to_work_with_scripts_up_and_then_without(older):
    done = older.up()
    assert done.returncode == 0, done.stderr
    assert parse((older.root / ".env").read_text())["COMPOSE_FILE"].endswith(":compose.secrets.yaml")
    assert status(older, "lb-api-key-of-version-0.1.0") == status(older, "lb-ui-key-of-version-0.1.0") == 200
    assert older.key == "lb-api-key-of-version-0.1.0"
    shutil.copy(older.root / ".env", older.root / "adopted")
    env = (older.root / ".env").read_text().replace(":compose.secrets.yaml", "")
    (older.root / ".env").write_text(env)
    done = older.compose("up", "--wait", check=False)
    assert done.returncode == 0, done.stderr + older.compose("logs").stdout
    assert status(older, "lb-api-key-of-version-0.1.0") == 200


def test_the_documented_uninstall_leaves_nothing_of_ours(older):
    """Last: its images have names of their own here, as the other tests need theirs."""
    prefix = f"{older.project}/"
    for version in ("0.0.0-older", images.VERSION):
        for name in images.NAMES:
            docker("tag", images.tag(name), f"{prefix}{name}:{version}")
    env = (older.root / ".env").read_text()
    (older.root / ".env").write_text(changed(env, {"LINGBI_IMAGE_PREFIX": prefix}))
    commands, chinese = (
        re.sub(r" +#.*", "", block(*where))
        for where in (("operations.md", "Uninstall"), ("operations.zh-CN.md", "卸载"))
    )
    keeping, everything = commands.splitlines()
    assert commands == chinese and everything == f"{keeping} --data"

    def volumes() -> str:
        return docker("volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={older.project}").stdout

    for command, stays in ((keeping, True), (everything, False)):
        done = subprocess.run([*command.split(), "--keep-cache"], cwd=older.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [bool(volumes()), (older.root / ".env").exists(), (older.root / "secrets").exists()] == [stays] * 3
        assert (
            docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={older.project}").stdout == ""
        )
        assert docker("image", "ls", "--quiet", f"{prefix}*").stdout == "", done.stdout
    assert not (older.root / ".lingbi").exists() and docker("image", "inspect", images.tag("server")).returncode == 0
