"""A lab on one machine: hosts with sshd and engines of their own, a registry, a network, an inventory.

Each host is a privileged container. Ansible reaches it over SSH, its engine runs inside, and what it
serves is reached at its address in the lab's network.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from lingbi.launch.supervision import wait_until
from lingbi.weights.lockfile import Entry, Lock
from lingbi.weights.peer import Peer, PeerHandler
from lingbi.weights.verification import hash_file
from tests.ansible.lab import images
from tests.containers.subnets import free_subnet

ROOT = images.ROOT
REGISTRY_PORT = 5000
MODEL = "lab/shapes"
OTHER, OTHER_NAME = "lab/forms", "lab--forms"  # a second one, and its name in the API
READY_S = 60
LOOK_S = 2  # each look at a host is a process within it
PLAY_S, BEGINS_S, TEST_S = 1100, 400, 1200  # what a play, its first drain and a test may take on a busy machine
SMI = "/usr/bin/nvidia-smi"
SERVER_ENVIRONMENT = ROOT / ".venv-test/lib/python3.10/site-packages"
UI_ENVIRONMENT = ROOT / ".venv-ui/lib/python3.13/site-packages"


def docker(*arguments, check: bool = True, timeout_s: float = 300) -> str:
    """What docker says; fails with what it says wrong."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s)
    assert not check or done.returncode == 0, f"docker {' '.join(map(str, arguments))}: {done.stderr[-2000:]}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Host:
    """A lab host: its name in the inventory, its container, its address."""

    name: str
    container: str
    address: str


class Lab:
    """Hosts by name, on a network of their own; everything carries the prefix and goes with stop()."""

    def __init__(self, folder: Path, prefix: str, programs: Path, servers=("gpu1", "gpu2"), gateways=("gate1",)):
        self.folder, self.prefix, self.programs = Path(folder), prefix, programs
        self.servers, self.gateways, self.hosts = list(servers), list(gateways), {}
        self.turns = []  # rows of rollouts that nothing held up
        self.digests = {}  # by version, of what push() has put into the registry
        self.network = f"{prefix}-net"
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> "Lab":
        images.build_host()
        self._make_keys()
        self.subnet = self._make_network()
        self._start_hub()
        self._run("registry", 2, "/usr/local/sbin/registry", "--publish", f"127.0.0.1::{REGISTRY_PORT}")
        for place, name in enumerate([*self.servers, *self.gateways], 11):
            self.add(name, place)
        for host in self.hosts.values():
            self.wait_for_ssh(host)
        port = docker("port", f"{self.prefix}-registry", REGISTRY_PORT).splitlines()[0].rpartition(":")[2]
        self.push_prefix, self.pull_prefix = f"127.0.0.1:{port}/lingbi/", f"{self.subnet}.2:{REGISTRY_PORT}/lingbi/"
        return self

    def add(self, name: str, place: int) -> Host:
        """A bare host at an address of the network."""
        mounts = {SERVER_ENVIRONMENT: "/opt/lab/server", UI_ENVIRONMENT: "/opt/lab/ui"}
        options = [part for source, target in mounts.items() for part in ("-v", f"{source}:{target}:ro")]
        options += ["-v", f"{self.folder / 'keys'}:/etc/lab:ro", "-v", "/var/lib/docker", "--hostname", name]
        self._run(name, place, "/usr/local/sbin/host", "--privileged", *options)
        self.hosts[name] = Host(name, f"{self.prefix}-{name}", f"{self.subnet}.{place}")
        return self.hosts[name]

    def _run(self, name: str, place: int, command: str, *options) -> None:
        address = ("--network", self.network, "--ip", f"{self.subnet}.{place}")
        docker("run", "--detach", "--name", f"{self.prefix}-{name}", *address, *options, images.HOST, command)

    def _make_keys(self) -> None:
        keys = self.folder / "keys"
        keys.mkdir(exist_ok=True)
        (self.folder / "known_hosts").unlink(missing_ok=True)
        for name in ("operator", "stranger"):
            file = self.folder / name
            if not file.exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        (keys / "authorized_keys").write_text((self.folder / "operator.pub").read_text())
        (self.folder / "secrets").mkdir(mode=0o700, exist_ok=True)
        (self.folder / "secrets/alice").write_text("lb-the-key-of-alice\n")
        login = {"LINGBI_UI_LOGIN_FILE": str(self.folder / "logins"), "PYTHONPATH": str(ROOT / "docker/ui")}
        command = [ROOT / ".venv-ui/bin/python", "-m", "lingbi_ui.logins", "add", "alice"]  # as scripts/login does
        self.password = subprocess.run(command, env=login, capture_output=True, text=True, check=True).stdout.strip()

    def _make_network(self) -> str:
        subnet = free_subnet()
        docker("network", "create", "--subnet", f"{subnet}.0/24", self.network)
        return subnet

    def _start_hub(self) -> None:
        """A ModelScope of the lab's own, with the demo model under two other names; it remembers who asked for which."""
        asked = {MODEL: set(), OTHER: set()}
        (self.folder / "hub-token").write_text("lab-token\n")
        hubs = {name: Peer((f"{self.subnet}.1", 0), self._demo_as(name), "lab-token") for name in asked}

        class Remembering(PeerHandler):
            def do_GET(self):
                name = OTHER if f"/{OTHER}/" in self.path else MODEL
                asked[name].add(self.client_address[0])
                self.server = hubs[name]
                super().do_GET()

        self.hub, self.asked_hub = hubs[MODEL], asked
        self.hub.RequestHandlerClass = Remembering
        threading.Thread(target=self.hub.serve_forever, daemon=True).start()

    def _demo_as(self, name: str) -> Path:
        """A folder of the demo model with a lock under this name; as the other model it does not say that it is the demo."""
        folder = self.folder / "hub" / name
        shutil.copytree(images.ROOT / "docker/server/models/demo", folder)
        if name == OTHER:
            config = json.loads((folder / "config.json").read_text())
            del config["lingbi_demo"]
            (folder / "config.json").write_text(json.dumps(config))
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        entries = [Entry(each, (folder / each).stat().st_size, hash_file(folder / each)) for each in names]
        (folder / ".lingbi").mkdir()
        Lock(name, "master", tuple(entries)).write(folder / ".lingbi/lock.json")
        return folder

    def wait_for_ssh(self, host: Host) -> None:
        came = wait_until(lambda: self.ssh(host, "true").returncode == 0, READY_S)
        assert came, f"{host.name}: no SSH; {docker('logs', host.container)[-500:]}"

    def ssh(self, host: Host, command: str, user: str = "admin") -> subprocess.CompletedProcess:
        """A command over SSH, as an operator would."""
        known = ("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}")
        options = ("-i", str(self.folder / "operator"), "-o", "ConnectTimeout=3", *known)
        return subprocess.run(["ssh", *options, f"{user}@{host.address}", command], capture_output=True, text=True)

    def root(self, name: str, *command, check: bool = True) -> str:
        """A command as root inside a host, beside SSH."""
        return docker("exec", self.hosts[name].container, *command, check=check)

    @contextlib.contextmanager
    def driver(self, name: str, version: str, capability: str = "9.0"):
        """A host with an NVIDIA driver and a GPU, as far as nvidia-smi tells."""
        capable, card = f"*compute_cap*) echo '0, {capability}' ;;", f"echo '0, GPU-1, {version}, NVIDIA H200'"
        said = f'case "$*" in {capable} *query-gpu*) {card} ;; esac'
        self.root(name, "sh", "-c", f"printf '#!/bin/sh\n%s\n' \"$1\" >{SMI}; chmod 755 {SMI}", "-", said)
        try:
            yield
        finally:
            self.root(name, "rm", SMI)

    def push(self, version: str, prefix: str) -> None:
        """Put the images of a version into the lab's registry as an operator does, and keep their digests for lab.yml."""
        registry = self.push_prefix.split("/")[0]
        command = ("host.lab.images", "--registry", registry, "--version", version, "--from", prefix)
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = yaml.safe_load(done.stdout)
        assert lines["lingbi_image_prefix"] == self.push_prefix
        self.digests |= lines["lingbi_image_digests"]

    def status(self, inventory: Path, **environment) -> tuple[int, str]:
        """(exit status, output) of scripts/lab status' own program."""
        command = [sys.executable, "-m", "host.lab.status", "-i", str(inventory)]
        values = os.environ | self._environment() | environment
        done = subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def publish(self, name: str, version: str, source: str) -> None:
        """Put an image of this machine into the lab's registry."""
        target = f"{self.push_prefix}{name}:{version}"
        docker("tag", source, target)
        docker("push", "--quiet", target)
        docker("rmi", target)

    def running(self, name: str, unit: str = "server") -> dict:
        """What was last proven to run on a host."""
        return json.loads(self.root(name, "cat", f"/opt/lingbi/{unit}/running.json"))

    def record(self, name: str, unit: str = "server") -> list:
        return [json.loads(line) for line in self.root(name, "cat", f"/opt/lingbi/{unit}/record.jsonl").splitlines()]

    def container(self, name: str, service: str) -> str:
        """The id of a service's container on a host: another one where it was replaced."""
        return self.root(name, "docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}")

    def upstreams(self, gateway: str | None = None) -> str:
        return self.root(gateway or self.gateways[0], "cat", "/opt/lingbi/upstreams/servers.conf")

    def is_held(self) -> bool:
        """Whether a run holds the lab, as it does from its preparations to its end."""
        return self.root(self.gateways[0], "ls", "/opt/lingbi/rollout.lock", check=False) != ""

    def cut(self, name: str) -> None:
        """Take a host off the network, as a pulled cable does."""
        docker("network", "disconnect", self.network, self.hosts[name].container)

    def mend(self, name: str) -> None:
        host = self.hosts[name]
        docker("network", "connect", "--ip", host.address, self.network, host.container)

    def inventory(self, file: str = "lab.yml", hosts=None, gateways=None, database=None, **variables) -> Path:
        """Write an inventory; returns its path. gateways: the lab's own by default; database: the host that keeps one."""
        hosts = hosts or {}
        known = f"-o UserKnownHostsFile={self.folder / 'known_hosts'}"
        common = {
            "ansible_user": "admin",
            "ansible_ssh_private_key_file": str(self.folder / "operator"),
            "ansible_ssh_common_args": f"{known} -o StrictHostKeyChecking=accept-new",
            "lingbi_image_prefix": self.pull_prefix,
            "lingbi_image_digests": self.digests,
            "lingbi_model": MODEL,
            "lingbi_keys": {"alice": "{{ lookup('ansible.builtin.file', inventory_dir ~ '/secrets/alice') }}"},
            "lingbi_logins_file": "{{ inventory_dir }}/logins",
            "lingbi_hub_token_file": str(self.folder / "hub-token"),
            "lingbi_weights_wait_s": 120,
            "lingbi_gpus": [],
            "lingbi_docker_repository": "",
            "lingbi_docker_packages": ["docker.io", "docker-cli", "docker-compose", "containerd"],
            "lingbi_docker_daemon": {
                "registry-mirrors": [f"http://{self.subnet}.2:{REGISTRY_PORT}"],
                "insecure-registries": [f"{self.subnet}.2:{REGISTRY_PORT}"],
                "features": {"containerd-snapshotter": False},
            },
            "lingbi_disk_free_gib": 5,
            "lingbi_update_disk_free_gib": 1,
            "lingbi_memory_gib": 2,
            "lingbi_server_memory_mib": 4096,
            "lingbi_ready_wait_s": 120,
            "lingbi_settings": self.settings,
            "lingbi_monitoring": True,
            "lingbi_agent_images": {"nginx-exporter": f"{self.pull_prefix}nginx-exporter:lab"},
        }

        def group(names):
            return {"hosts": {name: {"ansible_host": self.hosts[name].address} | hosts.get(name, {}) for name in names}}

        children = {"lingbi_servers": group(self.servers), "lingbi_gateways": group(gateways or self.gateways)}
        children |= {"lingbi_database": group([database])} if database else {}
        path = self.folder / file
        path.write_text(yaml.safe_dump({"all": {"vars": common | variables, "children": children}}))
        return path

    def play(self, playbook: str, inventory: Path, *options, timeout_s: float = PLAY_S, **more) -> "Played":
        """Run a playbook to its end."""
        begun = time.monotonic()
        process = self.begin(playbook, inventory, *options, **more)
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(
                f"{playbook} did not end within {timeout_s} s:\n{process.communicate()[0][-4000:]}"
            ) from None
        return Played(process.returncode, said, time.monotonic() - begun, self.summary())

    def begin(self, playbook: str, inventory: Path, *options, keep_summary=False, **popen) -> subprocess.Popen:
        """Start a playbook as `scripts/lab` does."""
        if not keep_summary:
            (self.folder / "summary.json").unlink(missing_ok=True)
        command = [self.programs / "ansible-playbook", ROOT / f"ansible/{playbook}.yml", "-i", inventory, *options]
        return subprocess.Popen(
            list(map(str, command)),
            env=os.environ | self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            **popen,
        )

    def _environment(self) -> dict:
        return {
            "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg"),
            "LINGBI_SUMMARY_FILE": str(self.folder / "summary.json"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }

    def summary(self) -> list:
        """The last rollout's rows."""
        file = self.folder / "summary.json"
        return json.loads(file.read_text()) if file.exists() else []

    @property
    def settings(self) -> dict:
        """The servers' settings: one thread each, and the lab's own ModelScope."""
        return {"LINGBI_CPU_THREADS": 1, "LINGBI_HUB_ENDPOINT": f"http://{self.subnet}.1:{self.hub.server_port}"}

    @property
    def key(self) -> str:
        return (self.folder / "secrets/api-key").read_text().strip()

    def url(self, name: str | None = None) -> str:
        return f"http://{self.hosts[name or self.gateways[0]].address}:6006"

    def server_url(self, name: str) -> str:
        """A server itself, behind no gateway."""
        return f"http://{self.hosts[name].address}:23333"

    def stop(self) -> None:
        """Remove containers, their volumes and the network."""
        if hasattr(self, "hub"):
            self.hub.shutdown()
            self.hub.server_close()
        listed = docker("ps", "--all", "--quiet", "--filter", f"name=^{self.prefix}-")
        if listed:
            docker("rm", "--force", "--volumes", *listed.split())
        docker("network", "rm", self.network, check=False)


@dataclass(frozen=True)
class Played:
    """A playbook that has ended: exit status, output, seconds, and the rollout's rows."""

    status: int
    output: str
    seconds: float
    rows: list

    @property
    def changed(self) -> int:
        """Tasks that changed something, on all hosts."""
        return sum(int(line.split("changed=")[1].split()[0]) for line in self.output.splitlines() if "changed=" in line)
