"""The systemd unit: its text, what goes into it, and what is refused before anything is changed."""

import argparse
import configparser
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from host import inside
from lingbi.errors import ConfigurationError
from lingbi.launch import service, starts, supervision
from lingbi.launch.systemd import decision, manager
from lingbi.launch.systemd import unit as unit_file
from lingbi.launch.systemd.manager import Installed
from lingbi.launch.systemd.unit import Unit
from lingbi.launch.up import check_no_unit, settings_of
from tests.conftest import ROOT
from tests.system.machine import have_systemd

UNIT = Unit(
    name="lingbi",
    root=ROOT,
    state_dir=Path("/srv/lingbi/.lingbi"),
    command=("/usr/bin/true", "-m", unit_file.PROGRAM),
    environment={"LINGBI_MODEL": 'a "b" 100 % \\ ', "HOME": "/root"},
    user="root",
    stop_timeout_s=105,
)


@pytest.fixture
def units(tmp_path, monkeypatch):
    """Folders of units of the system and of this user, which no systemd reads."""
    system, users = tmp_path / "system", tmp_path / "config/systemd/user"
    for folder in (system, users):
        folder.mkdir(parents=True)
    monkeypatch.setattr(manager, "SYSTEM_UNITS", system)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return system, users


def options(**given) -> argparse.Namespace:
    names = ("model", "engine", "host", "port")
    return argparse.Namespace(**{name: given.get(name) for name in names}, name="lingbi", server_only=False)


@pytest.mark.parametrize("user", ["root", None])
def test_systemd_accepts_the_unit(tmp_path, user):
    have_systemd()
    file = tmp_path / "lingbi.service"
    file.write_text(unit_file.text(replace(UNIT, user=user)))
    command = ["systemd-analyze", "verify", "--man=no", *(["--user"] if user is None else []), str(file)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "lingbi" not in done.stdout + done.stderr and done.returncode == 0, done.stdout + done.stderr
    file.write_text(file.read_text().replace("KillMode=mixed", "KillMode=gentle"))
    spoiled = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "gentle" in spoiled.stderr  # it has read this very file


def test_the_unit_is_restarted_drained_and_not_killed_early():
    text = unit_file.text(UNIT)
    found = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    found.optionxform = str
    found.read_string(text)
    unit = found["Service"]
    assert (unit["Type"], unit["KillMode"], unit["TimeoutStopSec"]) == ("exec", "mixed", "105")
    assert (unit["Restart"], unit["OOMPolicy"], found["Unit"]["StartLimitIntervalSec"]) == (
        "on-failure",
        "continue",
        "0",
    )
    assert "network-online.target" in found["Unit"]["After"] and found["Install"]["WantedBy"] == "multi-user.target"
    own = unit_file.text(replace(UNIT, user=None))
    assert "User=" not in own and "network-online" not in own and "WantedBy=default.target" in own
    assert unit_file.stated_state_dir(text) == UNIT.state_dir and unit_file.stop_bound_s(text) == 105


def test_a_value_is_quoted_as_systemd_reads_it():
    assert r'Environment="LINGBI_MODEL=a \"b\" 100 %% \\ "' in unit_file.text(UNIT)
    with pytest.raises(ConfigurationError, match="control character"):
        unit_file.quoted("a\nExecStart=/bin/sh")


def test_the_bound_holds_all_that_supervisord_waits_for():
    front = configparser.ConfigParser(interpolation=None)
    front.read(ROOT / "scripts/front.conf")
    waits = [int(front[name]["stopwaitsecs"]) for name in front.sections()]
    assert sum(waits) == unit_file.FRONT_STOP_S
    workers = 60 + supervision.STOP_MARGIN_S + unit_file.SUPERVISOR_STOP_S
    assert unit_file.stop_timeout_s(60, True, None) == workers
    assert unit_file.stop_timeout_s(60, False, "90s") == workers + sum(waits)  # less would cut answers off
    assert unit_file.stop_timeout_s(60, False, "300s") == 300
    with pytest.raises(ConfigurationError, match="LINGBI_STOP_GRACE='soon'"):
        unit_file.stop_timeout_s(60, False, "soon")


def test_the_environment_is_what_the_start_would_have_and_no_more():
    given = {"LINGBI_WORKERS": "2", "CUDA_VISIBLE_DEVICES": "1", "SSH_AUTH_SOCK": "/x", "LINGBI_STOP_GRACE": "90s"}
    given |= {"LINGBI_HUB_TOKEN_FILE": "token", "http_proxy": "http://proxy:3128"}
    found = unit_file.environment(given, {"LINGBI_GATEWAY_PORT": "7000"}, "/home/lab", "/usr/bin")
    assert found == {
        "LINGBI_WORKERS": "2",
        "LINGBI_HUB_TOKEN_FILE": str(Path.cwd() / "token"),  # the unit has another working folder
        "LINGBI_GATEWAY_PORT": "7000",
        "CUDA_VISIBLE_DEVICES": "1",
        "http_proxy": "http://proxy:3128",
        "HOME": "/home/lab",
        "PATH": "/usr/bin",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("https_proxy", "http://me:word@proxy:3128"),
        ("LINGBI_HUB_ENDPOINT", "https://me:word@mirror"),
        ("LINGBI_MODEL", "ms-0123456789abcdef0123"),
    ],
)
def test_a_secret_is_refused_by_its_name_alone(name, value):
    with pytest.raises(ConfigurationError, match=name) as refused:
        unit_file.environment({name: value}, {}, "/root", "/usr/bin")
    assert value not in str(refused.value) and "word" not in str(refused.value)


def test_the_path_has_nginx_and_the_systems_folders_once(tmp_path):
    path = unit_file.search_path("/opt/cuda/bin:relative:/usr/bin:/a b:", tmp_path).split(":")
    assert path == ["/opt/cuda/bin", "/usr/bin", str(tmp_path), *[p for p in unit_file.SYSTEM_PATH if p != "/usr/bin"]]


@pytest.mark.parametrize("path", ["/srv/a b", "/srv/100%", "/srv/$HOME", "/srv/灵笔", '/srv/"a"'])
def test_a_path_that_systemd_would_read_otherwise_is_refused(path):
    with pytest.raises(ConfigurationError, match="LINGBI_STATE_DIR"):
        unit_file.check_path("LINGBI_STATE_DIR", Path(path))


def test_options_become_settings_of_the_part_that_listens(monkeypatch, tmp_path):
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    settings = settings_of(options())
    unit = decision.decide(options(model="demo", host="::", port=7000), settings, is_system=True)
    assert unit.user == "root" and unit.environment["LINGBI_MODEL"] == "demo"
    assert (unit.environment["LINGBI_GATEWAY_HOST"], unit.environment["LINGBI_GATEWAY_PORT"]) == ("::", "7000")
    alone = options(port=7000)
    alone.server_only = True
    unit = decision.decide(alone, settings, is_system=False)
    assert unit.user is None and unit.environment["LINGBI_PORT"] == "7000" and unit.command[-1] == "--server-only"
    pinned = decision.pinned(unit, {"model": "Shanghai_AI_Laboratory/x", "engine": "turbomind"})
    assert pinned.environment["LINGBI_ENGINE"] == "turbomind"  # a boot without the driver must not choose the CPU


def test_a_name_of_another_folder_is_refused(units, tmp_path):
    have_systemd()
    system, _ = units
    service.check_name_is_free("lingbi", tmp_path, True)
    (system / "lingbi.service").write_text(unit_file.text(replace(UNIT, state_dir=tmp_path)))
    service.check_name_is_free("lingbi", tmp_path, True)  # its own is written anew
    with pytest.raises(ConfigurationError, match=f"runs {tmp_path}; give this one another name"):
        service.check_name_is_free("lingbi", tmp_path / "other", True)
    (system / "lingbi-x.service").write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(ConfigurationError, match="is not lingbi's"):
        service.check_name_is_free("lingbi-x", tmp_path, True)
    for name in ("nginx", "lingbi/../x", "lingbi 2", ""):
        with pytest.raises(ConfigurationError, match="--name"):
            unit_file.check_name(name)


def test_a_removal_may_find_no_unit_where_it_is_asked_to(units, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path / "state"))
    assert service.main(["remove", "--if-there"]) == 0 and capsys.readouterr().out == ""
    assert service.main(["remove"]) == 2 and "lingbi is no service here" in capsys.readouterr().err


def test_up_is_refused_beside_its_unit_only(units, tmp_path):
    _, users = units
    check_no_unit(tmp_path)
    (users / "lingbi.service").write_text(unit_file.text(replace(UNIT, user=None, state_dir=tmp_path)))
    check_no_unit(tmp_path / "other")
    with pytest.raises(ConfigurationError, match="scripts/service start, stop and status"):
        check_no_unit(tmp_path)
    assert manager.unit_of(tmp_path) == Installed(users / "lingbi.service", tmp_path, is_system=False)


def test_what_is_up_without_systemd_is_not_taken_over(tmp_path, demo_server):
    with pytest.raises(ConfigurationError, match=r"scripts/down && .*scripts/service install .*--model demo"):
        service.check_not_up(demo_server["state_dir"])
    service.check_not_up(tmp_path)


def test_the_last_start_is_kept_without_this_folders_places(tmp_path, monkeypatch):
    for name, value in (("LINGBI_WORKERS", "1"), ("LINGBI_STATE_DIR", "/x"), ("LINGBI_STOP_GRACE", "9s")):
        monkeypatch.setenv(name, value)
    starts.write_start(tmp_path, "scripts/up", ["--json", "--model", "a b"])
    settings, arguments = starts.read_start(tmp_path)
    assert settings["LINGBI_WORKERS"] == "1" and not {"LINGBI_STATE_DIR", "LINGBI_STOP_GRACE"} & set(settings)
    assert starts.line("scripts/up", {"LINGBI_WORKERS": "1"}, arguments) == "LINGBI_WORKERS=1 scripts/up --model 'a b'"
    assert starts.read_start(tmp_path / "none") == ({}, [])


def test_status_says_state_since_url_and_restarts():
    unit = Installed(Path("/etc/systemd/system/lingbi.service"), Path("/s"), is_system=True)
    found = {"ActiveState": "active", "SubState": "running", "ActiveEnterTimestamp": "Sat 12:00", "NRestarts": "2"}
    report = {"url": "http://127.0.0.1:6006", "api_key_file": "/s/api-key"}
    said = "\n".join(service.lines_of_status(unit, found | {"Result": "signal", "UnitFileState": "enabled"}, report))
    for part in ("enabled", "active (running) since Sat 12:00", "restarts 2", "http://127.0.0.1:6006", "journalctl -u"):
        assert part in said
    failed = "\n".join(service.lines_of_status(unit, {"ActiveState": "failed", "SubState": "failed"}, report))
    assert "failed (failed)" in failed and "URL" not in failed


def test_a_users_unit_needs_linger_and_no_longer_bound_than_its_manager():
    assert service.notes(UNIT) == []
    [linger] = service.notes(replace(UNIT, user=None))
    assert "sudo loginctl enable-linger root" in linger
    assert "after 120 s, sooner than the 200 s" in service.notes(replace(UNIT, user=None, stop_timeout_s=200))[1]


def test_host_knows_the_supervisors_of_both_ways():
    assert {name.decode() for name in inside.SUPERVISORS} == {supervision.SUPERVISORD, supervision.KEEPER}
