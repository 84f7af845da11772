"""What Compose makes of the files: GPUs, overrides, names, and that nothing stands in two places."""

import json
import os
import re
import subprocess

import httpx
import pytest
import yaml

from host import schema
from host.env_file import known_names
from host.stack import build_command
from host.start.replacement import alone, text_of
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
    "LINGBI_DATABASE_ADDRESS": "10.0.0.5",
    "LINGBI_DATABASE_URL": "postgresql://lingbi@10.0.0.5:5432/lingbi",
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
    done = compose_config(folder)
    if not check:
        return done
    assert done.returncode == 0 and "level=warning" not in done.stderr, done.stderr
    return json.loads(done.stdout)[part]


def compose_config(folder) -> subprocess.CompletedProcess:
    """`docker compose config` as JSON, with the settings of .env alone."""
    command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LINGBI_", "COMPOSE_"))}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


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
    assert not any(network.get("ipam", {}).get("config") for network in alone.values()), "those are the gateway's"
    assert alone["inside"]["internal"] is True and alone["published"]["driver_opts"] == {masquerade: "false"}


def test_the_database_is_reached_from_inside_and_its_password_stands_in_no_environment(folder):
    services = config(folder, "compose.yaml", "compose.postgres.yaml")
    postgres, server = services["postgres"], services["server"]
    assert "ports" not in postgres and postgres["networks"].keys() == server["networks"].keys() == {"inside"}
    assert postgres["user"] == "postgres" and "profiles" not in postgres
    assert server["environment"]["LINGBI_DATABASE_URL"] == "postgresql://lingbi@postgres:5432/lingbi"
    assert server["depends_on"]["postgres"]["condition"] == "service_started"  # it serves without
    for service, name in ((postgres, "POSTGRES_PASSWORD_FILE"), (server, "LINGBI_DATABASE_PASSWORD_FILE")):
        assert service["environment"][name] == "/run/secrets/database-password"
        assert [secret["source"] for secret in service["secrets"]] == ["database-password"]
    [volume] = postgres["volumes"]
    assert (volume["source"], volume["target"]) == ("database", postgres["environment"]["PGDATA"])
    assert config(folder, "compose.yaml")["postgres"]["profiles"] == ["postgres"]


def test_a_database_elsewhere_is_a_way_out_for_the_server_alone(folder):
    services = config(folder, "compose.yaml", "compose.database.yaml")
    assert services["server"]["networks"].keys() == {"inside", "outside"}
    assert services["server"]["environment"]["LINGBI_DATABASE_URL"] == ALL["LINGBI_DATABASE_URL"]
    assert services["gateway"]["networks"].keys() == {"inside", "edge"}
    files, missing = ("compose.yaml", "compose.database.yaml"), "LINGBI_DATABASE_URL"
    done = config(folder, *files, check=False, without=missing)
    assert done.returncode != 0 and missing in done.stderr, done.stderr


def test_a_labs_database_is_published_and_has_no_way_out(folder):
    files = ("compose.yaml", "compose.database-host.yaml")
    postgres = config(folder, *files)["postgres"]
    [port] = postgres["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("10.0.0.5", "5432", 5432)
    assert postgres["networks"].keys() == {"published"}
    assert {secret["source"] for secret in postgres["secrets"]} == {"database-password", "pg-hba"}
    assert "hba_file=/run/secrets/pg-hba" in postgres["command"]
    networks = config(folder, *files, part="networks")
    assert networks["published"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert not any(network.get("ipam", {}).get("config") for network in networks.values()), "those are another stack's"


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


@pytest.mark.parametrize("override", OVERRIDES)
def test_the_weights_alone_are_a_configuration_that_compose_takes(folder, override):
    """What scripts/up runs beside a running stack; nothing is started here."""
    found = json.loads(config(folder, "compose.yaml", override, check=False).stdout)
    (folder / "compose.yaml").write_text(text_of(alone(found, {"lingbi-test-rendered_weights"})))
    done = config(folder, "compose.yaml", check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["services"].keys() == {"weights"}, done.stderr


def test_what_compose_builds_is_labelled_as_what_scripts_up_builds(folder):
    mirrors = {"LINGBI_INDEX_URL": "http://m/simple", "LINGBI_APT_MIRROR": "http://m", "LINGBI_BASE_REGISTRY": "m/"}
    services = config(folder, "compose.yaml", **mirrors)
    for name in ("server", "ui", "gateway"):
        args = services[name]["build"]["args"]
        assert (
            args.keys() >= {"VERSION", "REVISION", "BASE_REGISTRY"} and f":{args['VERSION']}" in services[name]["image"]
        )
        told = build_command(name, "tag", {"LINGBI_VERSION": "1.0.0"} | mirrors)
        given = dict(word.split("=", 1) for word in told if re.match(r"[A-Z_]+=", word))
        own = ("VERSION", "REVISION")  # of the version and the commit
        assert given.keys() == args.keys() and all(given[key] == args[key] for key in args.keys() - set(own))


def test_mirrors_are_those_of_the_settings_and_none_without(folder):
    """Each Dockerfile gets the mirrors that it knows, so that Docker warns of none."""
    known = {"server": {"INDEX_URL", "APT_MIRROR"}, "ui": {"INDEX_URL"}, "gateway": {"APT_MIRROR"}}
    services = config(folder, "compose.yaml")
    for name, mirrors in known.items():
        args = services[name]["build"]["args"]
        assert {key: args.pop(key) for key in mirrors | {"BASE_REGISTRY"}} == dict.fromkeys(
            mirrors | {"BASE_REGISTRY"}, ""
        )
        assert args.keys() == {"VERSION", "REVISION"}
        declared = set(re.findall(r"^ARG ([A-Z_]+)$", (ROOT / "docker" / name / "Dockerfile").read_text(), re.M))
        assert declared == mirrors | {"BASE_REGISTRY"}
    services = config(
        folder, "compose.yaml", LINGBI_BASE_REGISTRY="mirror.example:5000/", LINGBI_CA_FILE="/etc/lab.pem"
    )
    assert services["prometheus"]["image"].startswith("mirror.example:5000/prom/prometheus:")
    assert services["dcgm-exporter"]["image"].startswith("nvcr.io/"), "another registry than Docker Hub"


def test_certificates_are_a_secret_of_builds_alone(folder):
    secrets = config(folder, "compose.yaml", part="secrets", LINGBI_CA_FILE="/etc/lab.pem")
    assert secrets["ca"]["file"] == "/etc/lab.pem"
    services = config(folder, "compose.yaml")
    assert {name for name, service in services.items() if "ca" in str(service.get("build", {}).get("secrets"))} == {
        "weights",
        "server",
        "ui",
    }
    assert not [name for name, service in services.items() if "'ca'" in str(service.get("secrets"))]


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


def test_pictures_come_from_urls_only_with_a_way_out(folder):
    plain = config(folder, "compose.yaml")["server"]
    assert plain["environment"]["LINGBI_PICTURE_URLS"] == "false" and plain["networks"].keys() == {"inside"}
    open_to = config(folder, "compose.yaml", "compose.picture-urls.yaml")["server"]
    assert open_to["environment"]["LINGBI_PICTURE_URLS"] == "true"
    assert open_to["networks"].keys() == {"inside", "outside"}


def test_it_needs_no_settings_and_what_overrides_need_is_asked_for_by_name(folder):
    services = config(folder, "compose.yaml")
    (folder / ".env").unlink()
    done = compose_config(folder)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)["services"].keys() == services.keys()
    assert not re.findall(r"\$\{(LINGBI_[A-Z_]+):?\?", (ROOT / "compose.yaml").read_text())
    done = config(folder, "compose.yaml", "compose.tls.yaml", check=False, without="LINGBI_TLS_FOLDER")
    assert done.returncode != 0 and "LINGBI_TLS_FOLDER" in done.stderr, done.stderr


def test_defaults_of_compose_are_those_of_the_settings():
    declared = {setting.name: setting.default for setting in schema.declared()}
    declared["LINGBI_VERSION"] = (ROOT / "VERSION").read_text().strip()
    declared |= {"LINGBI_PULL_POLICY": "never", "LINGBI_GATEWAY_SERVERS": ""}  # where there is one machine
    declared["LINGBI_PICTURE_URLS"] = "false"  # a container has no way out, as the setting's meaning says
    declared["LINGBI_CA_FILE"] = "/dev/null"  # a secret of builds needs a file; an empty one trusts nobody more
    declared["LINGBI_GATEWAY_ALLOW"] += ","  # and this machine's own network
    text = "".join(file.read_text() for file in ROOT.glob("compose*.yaml"))
    found = set(re.findall(r"\$\{(LINGBI_\w+):?-([^}$]*)", text))
    assert found == {(name, declared[name] or "") for name, _ in found}
    assert {name for name, _ in found} >= {
        "LINGBI_VERSION",
        "LINGBI_IMAGE_PREFIX",
        "LINGBI_SUBNET",
        "LINGBI_GATEWAY_PORT",
    }


def test_every_setting_that_compose_reads_is_declared_and_used():
    text = "".join(file.read_text() for file in ROOT.glob("compose*.yaml"))
    used = set(re.findall(r"\$\{(LINGBI_[A-Z_]+)", text))
    natively = {"LINGBI_PYTHON_MIRROR"}  # images have Python from their bases; scripts/environment reads it
    assert used <= known_names() and used | natively == used | deployment.NAMES | natively


def test_places_in_compose_and_image_are_the_same():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text().replace("!reset", "").replace("!override", ""))
    places = services["x-places"]
    image = dict(re.findall(r"(LINGBI_\w+)=(\S+)", (ROOT / "docker/server/Dockerfile").read_text()))
    assert {name: value for name, value in places.items() if name in image} == image and len(image) == 3
    assert places["LINGBI_PORT"] == str(Settings.model_fields["port"].default)
    for name, pattern in (("server", "EXPOSE 23333"), ("ui", "EXPOSE 7860"), ("gateway", "EXPOSE 6006")):
        assert pattern in (ROOT / "docker" / name / "Dockerfile").read_text()
