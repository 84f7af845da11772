"""The .env of a machine: written, read, held to the settings that are declared."""

import pytest

from host import env_file
from host.env_file import changed, check, compose_files, known_names, parse, render
from host.errors import Refusal
from host.machine import Machine
from host.up import asked_for, first_values
from host.up import parse as options
from lingbi import deployment
from lingbi.settings import Settings

MACHINE = Machine((26, 1), "", (2, 26), True, [])
TWO_GPUS = Machine((26, 1), "", (2, 26), True, ["GPU 0: NVIDIA L4 (UUID: GPU-a)", "GPU 1: NVIDIA L4 (UUID: GPU-b)"])
GOOD = {"LINGBI_VERSION": "1.0.0", "LINGBI_STOP_GRACE": "90s", "COMPOSE_FILE": "compose.yaml"}


def test_every_declared_setting_is_known_and_the_fixed_ones_are_not():
    from lingbi_gateway.settings import Settings as GatewaySettings

    known = known_names()
    server = {f"LINGBI_{name.upper()}" for name in Settings.model_fields}
    assert server - known == {f"LINGBI_{name}" for name in env_file.FIXED}
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
    check(GOOD | fine, known_names())


@pytest.mark.parametrize(
    ("text", "said"), [("A=1\nB 2", "line 2: 'B 2'"), ("A=1\nA=2", "line 2: A stands there twice")]
)
def test_lines_that_are_no_settings_are_named(text, said):
    with pytest.raises(Refusal, match=said):
        parse(text)


def test_quotes_comments_and_export_are_read_as_compose_does():
    assert parse("# no\n\nexport A='1 2'\nB=\"3\"\nC=x=y") == {"A": "1 2", "B": "3", "C": "x=y"}


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
    assert asked_for(options(["--engine", "cpu"]), values, TWO_GPUS)["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml"


def test_a_folder_is_mounted_and_other_overrides_stay(tmp_path):
    before = first_values(MACHINE) | {"COMPOSE_FILE": "compose.yaml:compose.cpu.yaml:compose.logins.yaml"}
    change = asked_for(options(["--model", str(tmp_path)]), before, MACHINE)
    assert change["LINGBI_MODEL_FOLDER"] == str(tmp_path)
    assert change["COMPOSE_FILE"] == "compose.yaml:compose.cpu.yaml:compose.model-folder.yaml:compose.logins.yaml"
    assert compose_files({}, True) == "compose.yaml"
