"""The .env of a machine: written, read, held to the settings that are declared."""

import json

import pytest

from host import decide, env_file
from host.decide import asked_for, first_values, model_of
from host.env_file import changed, check, compose_files, known_names, parse, render
from host.errors import Refusal
from host.machine import Machine
from host.up import parse as options
from lingbi import deployment
from lingbi.settings import Settings
from tests.containers.images import docker

MACHINE = Machine((26, 1), "", (2, 26), True, [])
TWO_GPUS = Machine((26, 1), "", (2, 26), True, ["GPU 0: NVIDIA L4 (UUID: GPU-a)", "GPU 1: NVIDIA L4 (UUID: GPU-b)"])
FIXED = ("HOST", "PORT", "MODELS_DIR", "STATE_DIR", "API_KEY_FILE", "PLAIN_KEYS_DIR", "WORKER")
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
        ({"LINGBI_API_KEY": "abc"}, "LINGBI_API_KEY in .env looks like a secret; put it into a file"),
        ({"LINGBI_HUB_TOKEN": "abc"}, "looks like a secret"),
        ({"LINGBI_MODEL": "lb-0123456789abcdef0123"}, "LINGBI_MODEL in .env looks like a secret"),
        ({"LINGBI_DRAIN_TIMEOUT_S": "300"}, "LINGBI_STOP_GRACE='90s' in .env: give more than 315s"),
        ({"LINGBI_GPU_IDS": "0"}, "LINGBI_GPU_IDS is set, and COMPOSE_FILE in .env does not hold compose.gpu-ids.yaml"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(values, said):
    with pytest.raises(Refusal) as refusal:
        check(GOOD | values, known_names())
    assert said in str(refusal.value)


def test_what_can_be_used_is_not():
    fine = {"LINGBI_MODEL": "vl-7b", "http_proxy": "http://proxy:3128", "TZ": "Asia/Shanghai"}
    fine |= {"LINGBI_KEY_CONCURRENCY": "4", "LINGBI_HUB_TOKEN_FILE": "/run/secrets/hub-token"}
    fine |= {"LINGBI_WEIGHTS_LOCK": "/mnt/disk-internlm-xcomposer2-vl-7b/weights.lock", "LINGBI_GATEWAY_TLS": "off"}
    check(GOOD | fine, known_names())


@pytest.mark.parametrize("name", sorted(known_names()))
def test_no_known_name_looks_like_a_secret(name):
    value = (GOOD | {"LINGBI_DRAIN_TIMEOUT_S": "60"}).get(name, "1")
    try:
        check(GOOD | {name: value}, known_names())
    except Refusal as refusal:
        assert "COMPOSE_FILE in .env does not hold" in str(refusal)


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


def test_changes_leave_the_rest_alone():
    assert changed("# mine\nA=1\nB=2\n", {"B": "3", "C": "4"}) == "# mine\nA=1\nB=3\nC=4\n"


def test_each_gpu_gets_a_worker_behind_the_gateway():
    values = first_values(TWO_GPUS)
    change = asked_for(options([]), values, TWO_GPUS)
    assert change["LINGBI_GATEWAY_SERVERS"] == "172.30.76.200:23333,172.30.76.200:23334"
    change = asked_for(options(["--engine", "cpu"]), values, TWO_GPUS)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"
    assert change["LINGBI_GATEWAY_SERVERS"] == "172.30.76.200:23333"


@pytest.mark.parametrize(
    ("change", "servers"),
    [
        ({"LINGBI_SUBNET": "10.9.8"}, "10.9.8.200:23333,10.9.8.200:23334"),
        ({"LINGBI_WORKERS": "1"}, "172.30.76.200:23333"),
        ({"LINGBI_GPU_COUNT": "1"}, "172.30.76.200:23333"),
        ({"LINGBI_GATEWAY_SERVERS": "10.0.0.5:23333,172.30.76.200:23333"}, None),
        ({"LINGBI_GATEWAY_SERVERS": ""}, "172.30.76.200:23333,172.30.76.200:23334"),
    ],
)
def test_the_machines_own_servers_follow_what_was_edited_and_others_stay(change, servers):
    before = first_values(TWO_GPUS)
    before |= asked_for(options([]), before, TWO_GPUS) | change
    assert asked_for(options([]), before, TWO_GPUS).get("LINGBI_GATEWAY_SERVERS") == servers


def test_a_folder_is_mounted_and_other_overrides_stay(tmp_path):
    before = first_values(MACHINE) | {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.logins.yaml"}
    change = asked_for(options(["--model", str(tmp_path)]), before, MACHINE)
    assert change["LINGBI_MODEL_FOLDER"] == str(tmp_path)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml:compose.model-folder.yaml:compose.logins.yaml"
    assert compose_files({}, True) == "compose.yaml"


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
    assert model_of("models/x") == {"LINGBI_MODEL_FOLDER": str(tmp_path / "models/x")}
    assert model_of("models/typo") == {"LINGBI_MODEL_FOLDER": str(tmp_path / "models/typo")}
    assert model_of("Owner/name")["LINGBI_MODEL"] == "Owner/name"


def test_a_bundles_images_are_those_of_a_first_file(tmp_path, monkeypatch):
    (tmp_path / "VERSION").write_text("9.9.9\n")
    (tmp_path / "IMAGE_PREFIX").write_text("registry.lab/lingbi/\n")
    monkeypatch.setattr(decide, "ROOT", tmp_path)
    monkeypatch.setattr(decide, "PREFIX_FILE", tmp_path / env_file.PREFIX_FILE.name)
    values = first_values(MACHINE)
    assert (values["LINGBI_VERSION"], values["LINGBI_IMAGE_PREFIX"]) == ("9.9.9", "registry.lab/lingbi/")
