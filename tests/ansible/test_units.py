"""What the modules do on a host: files that are whole at every moment, drains that are sure, GPUs, images, bounds."""

import hashlib
import http.server
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time

import pytest

from tests.ansible.plugins import load

files = load("library/unit_files.py")
images = load("library/image_here.py")
kept = load("library/image_kept.py")
run = load("library/unit_run.py")
swap = load("library/server_swap.py")
docker, unit, server = swap.docker, swap.unit, swap.server


def test_a_unit_rolls_only_for_a_reason():
    well = {"server": {"state": "running", "health": "healthy"}}
    running = {"files": {".env": "1", "compose.yaml": "2"}}
    live = running["files"]
    assert files.reason(running, live, {".env": "1", "compose.yaml": "2"}, well, ["server"]) == ""
    assert files.reason(running, live, {".env": "3", "x": "4"}, well, ["server"]) == "changed: .env, compose.yaml, x"
    assert "not running" in files.reason(running, live, live, {}, ["server"])
    ill = {"server": {"state": "running", "health": "unhealthy"}}
    assert "not healthy" in files.reason(running, live, live, ill, ["server"])
    assert "nothing was started" in files.reason({}, live, live, well, ["server"])
    assert "before what runs here was tested" in files.reason(running, {".env": "new"}, live, well, ["server"])


def test_requests_inside_are_read_from_metrics():
    assert server.inside("# HELP x\nlingbi_requests_inside 3.0\nlingbi_ready 1.0\n") == 3
    with pytest.raises(ValueError, match="lingbi_requests_inside"):
        server.inside("lingbi_ready 1.0\n")


@pytest.fixture
def worker():
    """A worker's /metrics: set .said to a text, a status, or seconds of silence."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            said = self.server.said
            if isinstance(said, float):
                time.sleep(said)
            self.send_response(said if isinstance(said, int) else 200)
            self.end_headers()
            self.wfile.write(said.encode() if isinstance(said, str) else b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.endpoint = f"127.0.0.1:{listening.server_port}"
        yield listening
        listening.shutdown()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("lingbi_requests_inside 2.0\n", "2 answers are still running"),
        (500, "it is not known whether answers are still running"),
        (0.6, "does not report them: timed out"),
        ("lingbi_ready 1.0\n", "no lingbi_requests_inside"),
    ],
)
def test_a_server_that_answers_somebody_or_does_not_tell_is_not_stopped(worker, monkeypatch, said, word):
    monkeypatch.setattr(server, "ANSWER_S", 0.2)
    worker.said = said
    with pytest.raises(docker.Failed, match=word) as failed:
        server.wait_until_idle([worker.endpoint], 0)
    assert "nothing was stopped" in str(failed.value)


def test_a_server_is_idle_when_nothing_is_inside_or_nobody_listens(worker):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        worker.said = "lingbi_requests_inside 0.0\n"
        assert server.wait_until_idle([worker.endpoint, f"127.0.0.1:{nobody.getsockname()[1]}"], 0) < 5


def test_only_the_servers_own_processes_are_waited_for(monkeypatch):
    on_gpu = {7: "7, python, 900 MiB", 99: "99, a student's, 60000 MiB"}
    monkeypatch.setattr(server, "computing", lambda: on_gpu)
    assert server.wait_until_gone(set(), 60) == [] and server.wait_until_gone({8}, 60) == []
    assert server.wait_until_gone({7, 8}, 0) == ["7, python, 900 MiB"]


PARAMS = {"directory": "", "gpus": True, "stop_wait_s": 1, "gpu_wait_s": 0, "ready_wait_s": 1, "smoke_wait_s": 1}


def test_the_old_version_is_started_whatever_its_end_or_the_gpus_say(tmp_path, monkeypatch):
    def refuse(*_):
        raise docker.Failed("nvidia-smi failed")

    began = []
    monkeypatch.setattr(swap, "end", refuse)
    monkeypatch.setattr(swap, "begin_and_ask", lambda params, done: began.append(params))
    (tmp_path / "running.json").write_text(json.dumps({"files": {}}))
    (tmp_path / "live").mkdir()
    swap.give_back(PARAMS | {"directory": str(tmp_path)}, done := {"seconds": {}})
    assert done["is_restored"] and began


def test_a_started_version_is_in_the_record_before_the_controller_hears_of_it(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    monkeypatch.setattr(swap, "begin_and_ask", lambda params, done: done["seconds"].update(start=2.0))
    params = PARAMS | {"directory": folder, "entry": {"version": "2", "seconds": {"stop": 1.0}}}
    swap.start(params, done := {"seconds": {"stop": 0.0}})
    last = unit.history(folder)[-1]
    assert (last["version"], last["result"], last["seconds"]) == ("2", "rolled", {"stop": 1.0, "start": 2.0})
    assert done["recorded"].items() <= last.items() and unit.read_running(folder)["version"] == "2"


def test_a_start_that_is_killed_is_not_recorded_and_is_a_reason_to_start_anew(tmp_path, monkeypatch):
    """As by a host that loses its power: what is live was never tested, whichever version is wanted next."""
    folder = prepared(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(swap, "begin_and_ask", killed)
    with pytest.raises(KeyboardInterrupt):
        swap.start(PARAMS | {"directory": folder, "entry": {"version": "2"}}, {"seconds": {}})
    assert [entry["version"] for entry in unit.history(folder)] == ["1"] and unit.read_running(folder)["version"] == "1"
    live, well = unit.digests(f"{folder}/live"), {"server": {"state": "running", "health": "healthy"}}
    for wanted in (unit.read_running(folder)["files"], unit.digests(f"{folder}/next")):
        assert files.reason(unit.read_running(folder), live, wanted, well, ["server"])
    assert unit.put_back(folder) and (tmp_path / "server/live/env").read_text() == "1"


def prepared(tmp_path):
    """A unit's folder that runs version 1 and has version 2 staged."""
    (tmp_path / "server").mkdir()
    for name, version in (("live", "1"), ("next", "2")):
        filled(tmp_path / "server" / name, env=version)
    unit.confirm(str(tmp_path / "server"), {"version": "1", "result": "rolled"})
    return str(tmp_path / "server")


def filled(folder, **texts):
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return str(folder)


def test_a_folder_is_replaced_whole_wherever_the_replacing_is_killed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    new, live = filled(tmp_path / "next", a="new"), filled(tmp_path / "live", a="old", b="old")
    for place in ("copytree", "rename", "second rename", "rmtree"):
        calls = []

        def stop(original, name, place=place, calls=calls):
            def call(*arguments, **options):
                calls.append(name)
                if name == place or (place == "second rename" and calls.count("rename") == 2):
                    raise Killed
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(unit, "settle", lambda target: None)
            patch.setattr(unit.shutil, "copytree", stop(unit.shutil.copytree, "copytree"))
            patch.setattr(unit.os, "rename", stop(os.rename, "rename"))
            patch.setattr(unit.shutil, "rmtree", stop(unit.shutil.rmtree, "rmtree"))
            unit.replace_folder(new, live)
        unit.settle(live)
        assert sorted(os.listdir(tmp_path)) == ["live", "next"]
        assert unit.digests(live) == (unit.digests(new) if place == "rmtree" else unit.digests(live))
        assert sorted(os.listdir(live)) in (["a"], ["a", "b"])
    unit.replace_folder(new, live)
    assert unit.digests(live) == unit.digests(new)


def test_two_modules_are_not_at_a_unit_at_once_and_the_wait_is_bounded(tmp_path):
    folder = str(tmp_path / "server")
    refused = pytest.raises(docker.Failed, match="another process on this host has held .* for 0 s")
    with unit.alone(folder, 1), refused, unit.alone(folder, 0):
        pass
    with unit.alone(folder, 0):
        pass


def test_a_unit_that_was_open_to_all_is_closed_before_secrets_come(tmp_path):
    """Its copies are made with the umask's mode, and get their files' own one afterwards."""
    folder = tmp_path / "gateway"
    folder.mkdir(mode=0o755)
    with unit.alone(str(folder), 1):
        assert folder.stat().st_mode & 0o777 == 0o700
        files.write(
            str(folder / "next"), {"secrets/ui-key": {"content": "lb-x\n", "mode": "0400", "owner": os.getuid()}}
        )
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert (modes["next"], modes["secrets"], modes["ui-key"]) == (0o700, 0o700, 0o400)
    unit.note(str(tmp_path / "new"), {"event": "noted"})
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_every_call_of_docker_ends_within_its_bound():
    with pytest.raises(docker.Failed, match="sleep 60 did not end within 0.2 s"):
        docker.run("sleep", "60", timeout_s=0.2)
    with pytest.raises(docker.Failed, match="is not installed"):
        docker.run("no-such-program")


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 2 hours (healthy)", "healthy"),
        ("Up 2 seconds (health: starting)", "starting"),
        ("Up 1 minute (unhealthy)", "unhealthy"),
        ("Up 2 hours", ""),
    ],
)
def test_a_containers_health_is_read_from_its_status(status, health):
    row = docker.described(f"abc\trunning\t{status}\tserver")
    assert row == {"id": "abc", "state": "running", "health": health, "service": "server"}
    assert docker.is_running(row) and docker.is_well(row) == (health in ("healthy", ""))


def test_what_runs_unhealthy_is_started_anew(monkeypatch):
    """Compose leaves a container whose settings did not change as it is, and says that it is unhealthy."""
    found = {name: {"id": name, "state": "running", "health": "healthy"} for name in ("ui", "gateway")}
    found["ui"]["health"] = "unhealthy"
    monkeypatch.setattr(docker, "containers", lambda directory: found)
    asked = []
    monkeypatch.setattr(docker, "said", lambda *command, **_: asked.append(command))
    done = subprocess.CompletedProcess((), 0, "", "")
    monkeypatch.setattr(docker, "compose", lambda directory, *command, **_: asked.append(command) or done)
    docker.bring_up("/opt/lingbi/gateway", ["gateway", "ui"], 60)
    assert asked[0] == ("docker", "stop", "--time", "10", "ui") and asked[1][0] == "up" and len(asked) == 2


def test_a_removed_unit_leaves_the_volumes_to_keep_and_no_other(tmp_path, monkeypatch):
    asked, volumes = [], ["lingbi-server_weights", "lingbi-server_uploads"]
    monkeypatch.setattr(run.shutil, "which", lambda name: "/usr/bin/docker")
    monkeypatch.setattr(docker, "said", lambda *command, **_: asked.append(command) or "\n".join(volumes))
    assert run.remove(str(tmp_path / "server"), ["weights"], 1) is True
    assert asked[-1] == ("docker", "volume", "rm", "lingbi-server_uploads")
    volumes.pop()
    assert run.remove(str(tmp_path / "server"), ["weights"], 1) is False
    assert run.remove(str(tmp_path / "server"), [], 1) is True
    assert asked[-1] == ("docker", "volume", "rm", "lingbi-server_weights")


def add(archive, name, content=b"x"):
    item = tarfile.TarInfo(name)
    item.size = len(content)
    archive.addfile(item, io.BytesIO(content))


def test_an_archive_of_a_bundle_is_loaded_by_the_one_within(tmp_path, monkeypatch):
    bundle, saved, loaded = tmp_path / "lingbi-1.tar", tmp_path / "images.tar", tmp_path / "loaded"
    with tarfile.open(bundle, "w") as archive:
        add(archive, "lingbi-1/images.tar", b"the images")
        add(archive, "lingbi-1/load")
    with tarfile.open(saved, "w") as archive:
        add(archive, "blobs/sha256/0")
        add(archive, "manifest.json")
    assert images.inner(str(bundle)) == "lingbi-1/images.tar" and images.inner(str(saved)) is None
    (tmp_path / "docker").write_text(f"#!/bin/sh\ncat >{loaded}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert images.load(str(bundle)).returncode == 0 and loaded.read_text() == "the images"


def test_images_in_an_archive_that_are_not_those_that_were_signed_are_not_loaded(tmp_path):
    """On the host, whatever was verified on the controller: the archive was copied since."""
    bundle, digest = tmp_path / "lingbi-1.tar", hashlib.sha256(b"the images").hexdigest()
    with tarfile.open(bundle, "w") as archive:
        add(archive, "lingbi-1/images.tar", b"the images")
    images.check_archive(str(bundle), digest)
    bundle.write_bytes(bundle.read_bytes().replace(b"the images", b"the imagez"))
    with pytest.raises(docker.Failed, match=f"lingbi-1/images.tar in .* was altered: .*, and {digest} was signed"):
        images.check_archive(str(bundle), digest)
    with tarfile.open(bundle, "w") as archive:
        add(archive, "manifest.json")
    with pytest.raises(docker.Failed, match="is not the archive that was verified"):
        images.check_archive(str(bundle), digest)


def test_an_image_is_taken_by_the_digests_that_were_signed():
    assert images.is_signed({"Id": "sha256:1"}, []) and images.is_signed({"Id": "sha256:1"}, ["sha256:2", "sha256:1"])
    assert not images.is_signed({"Id": "sha256:1", "RepoDigests": ["x@sha256:2"]}, ["sha256:2"])


def test_images_of_the_last_two_versions_stay():
    def rolled(version, result="rolled"):
        return {"version": version, "result": result, "images": {"server": f"s{version}"}}

    history = [rolled("1"), rolled("2"), rolled("2"), rolled("4", "returned"), rolled("3")]
    assert kept.kept(history, 2) == {"s2", "s3"} and kept.kept([], 2) == set()


def test_where_lingbi_is_removed_no_image_stays_and_without_a_record_all_do(tmp_path, monkeypatch):
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$*" = "image ls --no-trunc --quiet lab/server" ] && echo a b a\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert kept.outdated(["lab/server"], {"a"}, 2) == {"b"}
    assert kept.outdated(["lab/server"], set(), 2) == set()
    assert kept.outdated(["lab/server"], set(), 0) == {"a", "b"}
