"""What Compose makes of the files: GPUs, overrides, names, and that nothing stands in two places."""

import json
import os
import re
import subprocess

import httpx
import pytest
import yaml

from host.env_file import known_names
from host.stack import build_command
from lingbi import deployment
from lingbi.settings import Settings
from tests.compose.conftest import copy_repository, first_env
from tests.conftest import ROOT
from tests.server.launch.test_entrypoint import compose_settings, serving

OVERRIDES = sorted(path.name for path in ROOT.glob("compose.*.yaml"))
ALL = {
    "LINGBI_GPU_IDS": "0,MIG-1234",
    "LINGBI_MODEL_FOLDER": "/share/model",
    "LINGBI_SERVER_ADDRESS": "10.0.0.5",
    "LINGBI_SERVER_PORTS": "23333-23334",
    "LINGBI_TLS_FOLDER": "/etc/lingbi/tls",
    "LINGBI_SERVERS_FOLDER": "/etc/lingbi/servers",
    "LINGBI_AGENTS_ADDRESS": "10.0.0.5",
    "LINGBI_GATEWAY_PROJECT": "lingbi",
    "LINGBI_MONITORING_ADDRESS": "127.0.0.1",
    "LINGBI_MONITORING_PORT": "3000",
}


@pytest.fixture
def folder(docker_engine, tmp_path):
    return copy_repository(tmp_path / "copy")


def config(folder, *files: str, check: bool = True, without: str = "", part: str = "services", **values):
    """A part of `docker compose config` as a dict, or the CompletedProcess where it may fail."""
    text = first_env("lingbi-test-rendered", "10.213.12", 6006, **(ALL | values | {"COMPOSE_FILE": ":".join(files)}))
    lines = [line for line in text.splitlines() if not without or not line.startswith(f"{without}=")]
    (folder / ".env").write_text("\n".join(lines) + "\n")
    command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LINGBI_", "COMPOSE_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not check:
        return done
    assert done.returncode == 0 and "level=warning" not in done.stderr, done.stderr
    return json.loads(done.stdout)[part]


def devices(service: dict) -> list:
    return service["deploy"]["resources"]["reservations"].get("devices", [])


def test_gpus_by_count(folder):
    [device] = devices(config(folder, "compose.yaml", LINGBI_GPU_COUNT=2)["server"])
    assert device == {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
    [device] = devices(config(folder, "compose.yaml")["server"])
    assert device["count"] == -1


def test_gpus_by_name_and_slices(folder):
    [device] = devices(config(folder, "compose.yaml", "compose.gpu-ids.yaml")["server"])
    assert device["device_ids"] == ["0,MIG-1234"] and "count" not in device


def test_without_gpus_nothing_asks_for_one(folder):
    services = config(folder, "compose.yaml", "compose.cpu.yaml")
    assert all(not devices(service) for service in services.values() if "reservations" in str(service))
    assert services["server"]["environment"]["LINGBI_ENGINE"] == "cpu"


@pytest.mark.parametrize("override", OVERRIDES)
def test_every_override_is_content_with_the_rest(folder, override):
    assert config(folder, "compose.yaml", override)


def test_every_service_is_contained_and_bounded(folder):
    for name, service in config(folder, "compose.yaml").items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"] and service["pids_limit"], name
        assert int(service["mem_limit"]) > 0, name
        assert not re.search(r":latest|:$", service["image"]) and ":" in service["image"], name
        assert service["restart"] in ("unless-stopped", "on-failure:3"), name


def test_only_the_weights_and_what_is_published_have_a_way_out(folder):
    networks = config(folder, "compose.yaml", "compose.model-host.yaml", part="networks")
    assert networks["inside"]["internal"] is True
    assert not networks["outside"].get("internal") and not networks["edge"].get("internal")
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    assert networks["published"]["driver_opts"] == {masquerade: "false"}
    services = config(folder, "compose.yaml", "compose.model-host.yaml")
    assert services["server"]["networks"].keys() == {"inside", "published"}
    assert services["ui"]["networks"].keys() == {"inside"} and services["weights"]["networks"].keys() == {"outside"}
    alone = config(folder, "compose.yaml", "compose.agents.yaml", part="networks")
    assert alone["inside"]["internal"] is True and alone["published"]["driver_opts"] == {masquerade: "false"}


def test_all_that_answer_have_the_time_to_finish(folder):
    services = config(folder, "compose.yaml", LINGBI_STOP_GRACE="95s")
    assert {services[name]["stop_grace_period"] for name in ("server", "ui", "gateway")} == {"1m35s"}


def test_what_is_large_or_kept_is_on_a_volume(folder):
    services = config(folder, "compose.yaml")
    for name, setting in (("ui", "LINGBI_UI_FILES_DIR"), ("gateway", "LINGBI_GATEWAY_DIR")):
        place = services[name]["environment"][setting]
        assert [mount["type"] for mount in services[name]["volumes"] if mount["target"] == place] == ["volume"]
        assert place not in " ".join(services[name]["tmpfs"])
        assert f"{setting}={place}" in (ROOT / "docker" / name / "Dockerfile").read_text()


@pytest.mark.parametrize("override", ["compose.cpu.yaml", "compose.tls.yaml", "compose.agents.yaml"])
def test_the_exporter_asks_where_there_is_never_tls(folder, override):
    services = config(folder, "compose.yaml", override)
    inner = services["gateway"]["environment"]["LINGBI_GATEWAY_INNER_PORT"]
    assert services["nginx-exporter"]["command"] == [f"--nginx.scrape-uri=http://gateway:{inner}/status"]
    assert "gateway" not in services["nginx-exporter"].get("environment", {})


def test_the_entrypoint_serves_with_the_environment_that_compose_gives(folder, tmp_path):
    """Natively, with the places alone changed to folders of this machine."""
    services = config(folder, "compose.yaml", "compose.cpu.yaml", LINGBI_MODEL="demo", LINGBI_CPU_THREADS=1)
    given = services["server"]["environment"]
    moved = compose_settings("server", tmp_path).keys() - {"LINGBI_FETCH"}
    assert moved <= given.keys() and given["LINGBI_FETCH"] == "never" and given["LINGBI_ENGINE"] == "cpu"
    assert services["server"]["command"] == ["serve"] and services["weights"]["command"] == ["fetch"]
    kept = {name: value for name, value in given.items() if name not in moved}
    with serving(tmp_path, **kept) as server:
        keys = [file.read_text().strip() for file in server.keys]
        answers = [httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}) for key in keys]
        assert [answer.status_code for answer in answers] == [200, 200], server.log.read_text()
        server.process.terminate()
        assert server.process.wait(90) == 0


def test_what_compose_builds_is_labelled_as_what_scripts_up_builds(folder):
    services = config(folder, "compose.yaml")
    for name in ("server", "ui", "gateway"):
        args = services[name]["build"]["args"]
        assert args.keys() == {"VERSION", "REVISION"} and f":{args['VERSION']}" in services[name]["image"]
        told = build_command(name, "tag", "1.0.0")
        assert {word.split("=")[0] for word in told if word.startswith(tuple(args))} == args.keys()


def test_every_long_running_service_of_ours_has_a_health_check_in_its_image(folder):
    for name in ("server", "ui", "gateway"):
        assert "HEALTHCHECK" in (ROOT / "docker" / name / "Dockerfile").read_text()


def test_the_server_waits_for_weights_and_the_others_for_it(folder):
    services = config(folder, "compose.yaml")
    assert services["server"]["depends_on"]["weights"]["condition"] == "service_completed_successfully"
    for name in ("ui", "gateway"):
        assert services[name]["depends_on"]["server"]["condition"] == "service_healthy"


def test_a_model_host_publishes_its_workers_and_nothing_leaves_by_itself(folder):
    services = config(folder, "compose.yaml", "compose.model-host.yaml")
    ports = {(port["host_ip"], port["published"], port["target"]) for port in services["server"]["ports"]}
    assert ports == {("10.0.0.5", "23333", 23333), ("10.0.0.5", "23334", 23334)}
    assert "outside" not in services["server"]["networks"]


def test_exporters_alone_are_published_at_one_address_and_have_no_way_out(folder):
    services = config(folder, "compose.yaml", "compose.agents.yaml")
    for name, port, networks in (
        ("dcgm-exporter", 9400, {"published"}),
        ("nginx-exporter", 9113, {"published", "gateway"}),
    ):
        [published] = services[name]["ports"]
        assert (published["host_ip"], published["published"], published["target"]) == ("10.0.0.5", str(port), port)
        assert services[name]["networks"].keys() == networks and "profiles" not in services[name]
    [device] = devices(services["dcgm-exporter"])
    assert device["count"] == -1


def test_a_folder_of_weights_is_read_only(folder):
    services = config(folder, "compose.yaml", "compose.model-folder.yaml")
    for name in ("server", "weights"):
        [mount] = [mount for mount in services[name]["volumes"] if mount["target"] == "/model"]
        assert mount["source"] == "/share/model" and mount["read_only"]
    assert services["weights"]["networks"].keys() == {"inside"}


def demanded(text: str) -> set:
    return set(re.findall(r"\$\{(LINGBI_[A-Z_]+):?\?", text))


@pytest.mark.parametrize("name", sorted(demanded((ROOT / "compose.yaml").read_text())))
def test_a_missing_setting_stops_by_its_name(folder, name):
    done = config(folder, "compose.yaml", check=False, without=name)
    assert done.returncode != 0 and name in done.stderr and "scripts/up writes it" in done.stderr, done.stderr


def test_compose_repeats_only_the_defaults_of_what_nobody_needs_to_set():
    """The others come from .env, which scripts/up writes from where they are declared."""
    declared = {f"LINGBI_{setting.name}": setting.default for setting in deployment.SETTINGS}
    for file in ROOT.glob("compose*.yaml"):
        for name, default in re.findall(r"\$\{(\w+):?-([^}$]*)", file.read_text()):
            assert declared.get(name, default) == default and name.startswith(
                ("LINGBI_MONITORING_", "LINGBI_GATEWAY_ALLOW", "LINGBI_ALLOWED_ORIGINS", "COMPOSE_", "REVISION")
            )


def test_every_setting_that_compose_reads_is_declared_and_used():
    text = "".join(file.read_text() for file in ROOT.glob("compose*.yaml"))
    used = set(re.findall(r"\$\{(LINGBI_[A-Z_]+)", text))
    assert used <= known_names() and used >= deployment.NAMES


def test_places_in_compose_and_image_are_the_same():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text().replace("!reset", "").replace("!override", ""))
    places = services["x-places"]
    image = dict(re.findall(r"(LINGBI_\w+)=(\S+)", (ROOT / "docker/server/Dockerfile").read_text()))
    assert {name: value for name, value in places.items() if name in image} == image and len(image) == 3
    assert places["LINGBI_PORT"] == str(Settings.model_fields["port"].default)
    for name, pattern in (("server", "EXPOSE 23333"), ("ui", "EXPOSE 7860"), ("gateway", "EXPOSE 6006")):
        assert pattern in (ROOT / "docker" / name / "Dockerfile").read_text()
