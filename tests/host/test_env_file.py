"""The .env of a machine: written, read, held to the settings that are declared."""

import json
from dataclasses import replace

import pytest

from host import env_file, schema
from host.env_file import changed, check, compose_files, known_names, parse, render
from host.errors import Refusal
from host.machine import Machine
from host.start import decide
from host.start.decide import asked_for, first_values, model_of
from host.start.up import parse as options
from lingbi import deployment
from lingbi.settings import Settings
from tests.containers.images import docker

MACHINE = Machine((26, 1), "", (2, 26), True, [])
TWO_GPUS = Machine((26, 1), "", (2, 26), True, ["GPU 0: NVIDIA L4 (UUID: GPU-a)", "GPU 1: NVIDIA L4 (UUID: GPU-b)"])
FIXED = ("HOST", "PORT", "MODELS_DIR", "STATE_DIR", "API_KEY_FILE", "PLAIN_KEYS_DIR", "WORKER", "PLACEMENT_FILE")
FIXED += ("PAGE_KEY_FILE", "WORKERS_FILE", "WORKERS_HOST")
SERVER = "172.30.76.200"
GOOD = {"LINGBI_VERSION": "1.0.0", "LINGBI_STOP_GRACE": "90s", "COMPOSE_FILE": "compose.yaml"}


def test_every_declared_setting_is_known_and_the_fixed_ones_are_not():
    from lingbi_gateway.settings import Settings as GatewaySettings

    known = known_names()
    server = {f"LINGBI_{name.upper()}" for name in Settings.model_fields}
    assert server - known == {f"LINGBI_{name}" for name in FIXED}
    assert known >= deployment.NAMES
    assert {f"LINGBI_GATEWAY_{name.upper()}" for name in GatewaySettings.__dataclass_fields__} <= known
    assert "LINGBI_UI_LOGIN_FILE" in known


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"LINGBI_MODLE": "demo"}, "LINGBI_MODLE='demo' in .env: there is no such setting; did you mean LINGBI_MODEL?"),
        ({"LINGBI_GATEWAY_PROT": "1"}, "did you mean LINGBI_GATEWAY_PORT?"),
        ({"MODEL": "demo"}, "there is no such setting"),
        ({"LINGBI_HOST": "0.0.0.0"}, "there is no such setting"),
        ({"LINGBI_VERSION": "latest"}, "LINGBI_VERSION='latest' in .env: give a version"),
        ({"LINGBI_VERSION": ""}, "give a version"),
        ({"LINGBI_VERSION": "0.1.O"}, "LINGBI_VERSION='0.1.O' in .env: give a version"),
        ({"LINGBI_VERSION": "1"}, "give a version"),
        ({"LINGBI_API_KEY": "abc"}, "LINGBI_API_KEY in .env looks like a secret; put it into a file"),
        ({"LINGBI_HUB_TOKEN": "abc"}, "looks like a secret"),
        ({"LINGBI_MODEL": "lb-0123456789abcdef0123"}, "LINGBI_MODEL in .env looks like a secret"),
        ({"LINGBI_DRAIN_TIMEOUT_S": "300"}, "LINGBI_STOP_GRACE='90s' in .env: give more than 315s"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(values, said):
    with pytest.raises(Refusal) as refusal:
        check(GOOD | values, known_names())
    assert said in str(refusal.value)


def test_what_can_be_used_is_not():
    fine = {"LINGBI_MODEL": "vl-7b", "http_proxy": "http://proxy:3128", "TZ": "Asia/Shanghai"}
    fine |= {"LINGBI_TP": "auto", "LINGBI_KEY_CONCURRENCY": "4", "LINGBI_HUB_TOKEN_FILE": "/run/secrets/hub-token"}
    fine |= {"LINGBI_WEIGHTS_LOCK": "/mnt/disk-internlm-xcomposer2-vl-7b/weights.lock", "LINGBI_GATEWAY_TLS": "off"}
    check(GOOD | fine, known_names())


@pytest.mark.parametrize("name", sorted(known_names()))
def test_no_known_name_looks_like_a_secret(name):
    value = (GOOD | {"LINGBI_DRAIN_TIMEOUT_S": "60"}).get(name, "1")
    check(GOOD | {name: value}, known_names())


@pytest.mark.parametrize("name", ["LINGBI_DRAIN_TIMEOUT_S", "LINGBI_WORKERS", "LINGBI_LOAD_TIMEOUT_S"])
def test_numbers_that_are_none(name):
    with pytest.raises(Refusal, match=f"{name}='x' in .env: give a whole number"):
        check(GOOD | {name: "x"}, known_names())
    assert env_file.whole({}, name) == Settings.model_fields[name[len("LINGBI_") :].lower()].default


@pytest.mark.parametrize(
    ("text", "said"), [("A=1\nB 2", "line 2: 'B 2'"), ("A=1\nA=2", "line 2: A stands there twice")]
)
def test_lines_that_are_no_settings_are_named(text, said):
    with pytest.raises(Refusal, match=said):
        parse(text)


ODD = {
    "A='1 2'": "1 2",
    "export A=1": "1",
    'A="3"': "3",
    "A=x=y": "x=y",
    "A=1 # why": "1",
    "A='1' # why": "1",
    "A=a#b": "a#b",
    "A= 1": "1",
    "A='a$b'": "a$b",
    "A=": "",
    'A="it\'s"': "it's",
    "A=/a b/c": "/a b/c",
    "A='# no'": "# no",
}


@pytest.mark.parametrize(("line", "value"), ODD.items())
def test_lines_have_the_meaning_that_compose_gives_them(line, value, docker_engine, tmp_path):
    assert parse(line) == {"A": value}
    (tmp_path / ".env").write_text(f"{line}\n")
    (tmp_path / "compose.yaml").write_text(
        "services: {x: {image: x, env_file: .env, labels: {a: '${A}'}}}\n",
    )
    done = docker("compose", "--project-directory", tmp_path, "config", "--format=json", cwd=tmp_path)
    found = json.loads(done.stdout)["services"]["x"]
    assert [text.replace("$$", "$") for text in (found["environment"]["A"], found["labels"]["a"])] == [value, value]


@pytest.mark.parametrize("line", ["A=a$b", 'A="a$b"', "A=${HOME}", "A='1", 'A="a\\nb"', "A='1'2"])
def test_lines_that_more_than_one_meaning_is_given_to_are_refused(line):
    with pytest.raises(Refusal, match="line 1: A has quotes or a"):
        parse(line)


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "a # b", "a$b", 'a"b', ""])
def test_what_is_written_is_read(value):
    assert parse(changed("A=1\n", {"A": value})) == parse(render({"A": value})) == {"A": value}
    with pytest.raises(Refusal, match="cannot stand in .env"):
        changed("", {"A": "both ' and $"})


def test_a_first_file_explains_itself_and_is_accepted():
    values = first_values(MACHINE)
    values |= asked_for(options([]), values, MACHINE)
    text = render(values)
    assert parse(text) == values and values["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"
    check(values, known_names())
    for setting in deployment.SETTINGS:
        assert setting.help in text


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("postgresql://lingbi@postgres:5432/lingbi", "compose.postgres.yaml"),
        ("postgresql+psycopg://lingbi@postgres/lingbi?sslmode=disable", "compose.postgres.yaml"),
        ("postgres://postgres", "compose.postgres.yaml"),
        ("postgresql://lingbi@postgres.lab:5432/lingbi", "compose.database.yaml"),
        ("postgresql://postgres@10.0.0.5/lingbi", "compose.database.yaml"),
        ("sqlite:////srv/accounts.db", ""),
        ("sqlite:///postgres", ""),
        ("", ""),
    ],
)
def test_a_database_takes_the_override_of_its_place_and_leaves_it_when_it_moves(url, file):
    other = {"compose.postgres.yaml": "compose.database.yaml"}.get(file, "compose.postgres.yaml")
    before = first_values(TWO_GPUS) | {"COMPOSE_FILE": f"compose.yaml:{other}", "LINGBI_DATABASE_URL": url}
    change = asked_for(options([]), before, TWO_GPUS)
    assert change == {"COMPOSE_FILE": ":".join(filter(None, ["compose.yaml", file]))}


@pytest.mark.parametrize(("machine", "files"), [(MACHINE, "compose.yaml:compose.cpu.yaml"), (TWO_GPUS, "compose.yaml")])
def test_lines_written_by_hand_before_the_first_start_are_completed(machine, files):
    before = {"LINGBI_INDEX_URL": "https://mirror.example/simple"}
    values = before | decide.missing_from(before)
    values |= asked_for(options([]), values, machine)
    assert values["COMPOSE_FILE"] == files and values["LINGBI_INDEX_URL"] == before["LINGBI_INDEX_URL"]
    check(values, known_names())


def test_changes_leave_the_rest_alone():
    assert changed("# mine\nA=1\nB=2\n", {"B": "3", "C": "4"}) == "# mine\nA=1\nB=3\nC=4\n"


def test_the_engine_on_the_cpu_leaves_the_gpus_to_others():
    change = asked_for(options(["--engine", "cpu"]), first_values(TWO_GPUS), TWO_GPUS)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"


def test_the_workers_that_the_server_has_started_are_watched():
    values = first_values(TWO_GPUS)
    assert json.loads(decide.targets(values, [23333, 23334])) == [{"targets": [f"{SERVER}:23333", f"{SERVER}:23334"]}]


def test_servers_that_name_their_model_are_watched_by_their_addresses():
    values = first_values(TWO_GPUS) | {"LINGBI_GATEWAY_SERVERS": "vl-7b=10.0.0.5:23333, 10.0.0.6:23333"}
    assert json.loads(decide.targets(values, [23333])) == [{"targets": ["10.0.0.5:23333", "10.0.0.6:23333"]}]


OLD_SERVERS = {"LINGBI_GATEWAY_SERVERS": f"{SERVER}:23333,{SERVER}:23334"}  # as version 0.1.0 wrote it


@pytest.mark.parametrize(
    ("change", "servers"),
    [
        ({}, ""),
        ({"LINGBI_SUBNET": "10.9.8"}, ""),
        ({"LINGBI_GATEWAY_SERVERS": "10.0.0.5:23333,172.30.76.200:23333"}, None),
        ({"LINGBI_GATEWAY_SERVERS": ""}, None),
    ],
)
def test_the_machines_own_servers_are_left_to_the_server_and_others_stay(change, servers):
    before = first_values(TWO_GPUS) | OLD_SERVERS | change
    assert asked_for(options([]), before, TWO_GPUS).get("LINGBI_GATEWAY_SERVERS") == servers


def test_a_folder_is_mounted_and_other_overrides_stay(tmp_path):
    before = first_values(MACHINE) | {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.logins.yaml"}
    change = asked_for(options(["--model", str(tmp_path)]), before, MACHINE)
    assert change["LINGBI_MODEL_FOLDER"] == str(tmp_path)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml:compose.model-folder.yaml:compose.logins.yaml"
    assert compose_files({}, True, False) == "compose.yaml"


OVERRIDES = {
    "LINGBI_TLS_FOLDER": ("/tls", "compose.tls.yaml"),
    "LINGBI_MODEL_FOLDER": ("/model", "compose.model-folder.yaml"),
    "LINGBI_GPU_IDS": ("0,1", "compose.gpu-ids.yaml"),
    "LINGBI_SERVERS_FOLDER": ("/servers", "compose.servers-folder.yaml"),
    "LINGBI_SERVER_ADDRESS": ("10.0.0.5", "compose.model-host.yaml"),
    "LINGBI_PICTURE_URLS": ("true", "compose.picture-urls.yaml"),
    "LINGBI_DATABASE_URL": ("postgresql://lingbi@10.0.0.5/lingbi", "compose.database.yaml"),
}


@pytest.mark.parametrize(("name", "value", "file"), [(name, *given) for name, given in OVERRIDES.items()])
def test_an_override_takes_part_while_its_setting_has_a_value(name, value, file):
    before = first_values(TWO_GPUS) | {"COMPOSE_FILE": "compose.yaml:compose.logins.yaml"}
    change = asked_for(options([]), before | {name: value}, TWO_GPUS)
    assert change == {"COMPOSE_FILE": f"compose.yaml:{file}:compose.logins.yaml"}
    with_it = before | change
    assert asked_for(options([]), with_it | {name: value}, TWO_GPUS) == {}
    for off in ("", "false") if value == "true" else ("",):
        assert asked_for(options([]), with_it | {name: off}, TWO_GPUS) == {"COMPOSE_FILE": before["COMPOSE_FILE"]}
    removed = asked_for(options([]), with_it, TWO_GPUS)  # a line that is gone; the file itself says true for pictures
    assert removed == ({} if value == "true" else {"COMPOSE_FILE": before["COMPOSE_FILE"]})


def test_every_setting_with_an_override_says_so_where_it_is_documented():
    """In .env and docs/settings.md: so that those who use docker compose alone know which file to add."""
    told = {setting.name: setting.help for setting in schema.declared()}
    known = env_file.overrides_of(dict.fromkeys(known_names(), "x") | {"LINGBI_DATABASE_URL": "postgresql://x/x"})
    assert known == {file: name for name, (_, file) in OVERRIDES.items()}
    known[env_file.POSTGRES] = "LINGBI_DATABASE_URL"
    assert [name for file, name in known.items() if file not in told[name] or not (env_file.ROOT / file).exists()] == []
    head = (env_file.ROOT / "compose.yaml").read_text().split("\nname: ")[0]
    assert "`docker compose` alone does not" in head and [file for file in known if file not in head] == []
    assert "where you use docker compose alone, do it yourself" in render({"COMPOSE_FILE": "compose.yaml"})


@pytest.mark.parametrize(("machine", "files"), [(MACHINE, "compose.yaml:compose.cpu.yaml"), (TWO_GPUS, "compose.yaml")])
def test_without_a_list_of_files_the_machine_decides(machine, files):
    assert asked_for(options([]), {"LINGBI_MODEL": "demo"}, machine) == {"COMPOSE_FILE": files}


def test_keys_in_files_go_on_to_work_where_they_are_there():
    before = first_values(MACHINE)
    files = replace(MACHINE, has_secrets=True)
    change = asked_for(options([]), before, files)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml:compose.secrets.yaml"
    assert asked_for(options([]), before | change, MACHINE)["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"
    assert "COMPOSE_FILE" not in asked_for(options([]), before | change, files)


def test_a_name_after_a_folder_undoes_it(tmp_path):
    before = first_values(MACHINE)
    before |= asked_for(options(["--model", str(tmp_path)]), before, MACHINE)
    change = asked_for(options(["--model", "vl-7b"]), before, MACHINE)
    assert change["LINGBI_MODEL"] == "vl-7b" and change["LINGBI_MODEL_FOLDER"] == ""
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"
    check(before | change | {"LINGBI_VERSION": "1.0.0"}, known_names())


def test_a_folder_below_this_one_is_no_id_of_modelscope(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/x").mkdir(parents=True)
    assert model_of(["models/x"]) == {"LINGBI_MODEL_FOLDER": str(tmp_path / "models/x")}
    assert model_of(["models/typo"]) == {"LINGBI_MODEL_FOLDER": str(tmp_path / "models/typo")}
    assert model_of(["Owner/name"])["LINGBI_MODEL"] == "Owner/name"


def test_several_models_stand_in_one_setting_and_have_their_workers(tmp_path):
    change = asked_for(options(["--model", "vl-7b*3", "--model", "4khd-7b,demo"]), first_values(TWO_GPUS), TWO_GPUS)
    assert change["LINGBI_MODEL"] == "vl-7b*3,4khd-7b,demo"
    values = first_values(TWO_GPUS) | change
    assert env_file.parse(env_file.render(values))["LINGBI_MODEL"] == change["LINGBI_MODEL"]
    assert model_of(["/models/mine,demo"])["LINGBI_MODEL"] == "/models/mine,demo"
    for asked in ([str(tmp_path), "demo"], [f"demo,{tmp_path}"]):
        with pytest.raises(Refusal, match="a folder of this machine is served alone; beside others, bring it into"):
            model_of(asked)


def test_a_bundles_images_are_those_of_a_first_file(tmp_path, monkeypatch):
    (tmp_path / "VERSION").write_text("9.9.9\n")
    (tmp_path / "IMAGE_PREFIX").write_text("registry.lab/lingbi/\n")
    monkeypatch.setattr(decide, "ROOT", tmp_path)
    monkeypatch.setattr(decide, "PREFIX_FILE", tmp_path / env_file.PREFIX_FILE.name)
    values = first_values(MACHINE)
    assert (values["LINGBI_VERSION"], values["LINGBI_IMAGE_PREFIX"]) == ("9.9.9", "registry.lab/lingbi/")
