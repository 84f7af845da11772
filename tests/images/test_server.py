"""The server's image as it runs: answers by content, health, drain, an end that is seen, its commands."""

import json
import threading

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.client import is_let_in
from tests.conftest import ROOT
from tests.containers.images import docker, inspect, worrying
from tests.images.conftest import EXPECTED, HARDENED, health, logs, python, running, wait_exit, wait_healthy

LONG_ANSWER = {"ignore_eos": True, "max_tokens": 3000, "stream": True}


def address(name: str) -> str:
    return f"http://{inspect(name)['NetworkSettings']['IPAddress']}:23333"


def key(name: str) -> str:
    return docker("exec", name, "cat", "/var/lib/lingbi/api-key").stdout.strip()


def worker_pid(name: str) -> str:
    return docker(
        "exec", name, "sh", "-c", "grep -al [l]ingbi.worker /proc/[0-9]*/cmdline | cut -d/ -f3"
    ).stdout.split()[0]


def test_the_pinned_environment_imports_inside(server_image):
    code = (
        "import torch, lmdeploy, transformers; print(torch.__version__, lmdeploy.__version__, transformers.__version__)"
    )
    assert python(server_image, code).split() == ["2.1.2+cu121", "0.4.1", "4.40.2"]


def test_clips_configuration_is_inside(server_image):
    code = (
        "import json; from lingbi.engine.patches import CLIP_CONFIG; "
        "print(json.loads((CLIP_CONFIG / 'config.json').read_text())['vision_config']['image_size'])"
    )
    assert python(server_image, code).strip() == "336"


def test_it_answers_by_content(server):
    done = docker("exec", server, "lingbi", "smoke")
    assert "16 passed, 0 failed" in done.stdout, done.stderr


def test_it_writes_only_into_its_volumes(server):
    changes = [line for line in docker("diff", server).stdout.splitlines() if line[2:] not in ("/models", "/tmp")]
    assert changes == []


def test_its_log_holds_nothing_unexpected(server):
    assert worrying(logs(server), EXPECTED) == []


def test_process_1_is_supervisord_and_no_root(server):
    said = docker("exec", server, "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; id -u; grep CapEff /proc/1/status").stdout
    assert "lingbi.launch.pid1" in said and "10001" in said and "0000000000000000" in said


def test_it_is_unhealthy_while_its_worker_stands_still(server):
    pid = worker_pid(server)
    docker("exec", server, "sh", "-c", f"kill -STOP {pid}")
    try:
        done = docker("exec", server, "python", "-m", "lingbi.launch.health", check=False)
        assert done.returncode == 1 and "port 23333: TimeoutError" in done.stdout
    finally:
        docker("exec", server, "sh", "-c", f"kill -CONT {pid}")
    assert docker("exec", server, "python", "-m", "lingbi.launch.health").stdout.strip() == "ready"


def test_a_killed_worker_comes_back(server):
    pid = worker_pid(server)
    docker("exec", server, "sh", "-c", f"kill -9 {pid}")
    ready = ("exec", server, "python", "-m", "lingbi.launch.health")
    assert wait_until(lambda: docker(*ready, check=False).returncode == 0 and worker_pid(server) != pid, 60), logs(
        server
    )


def test_a_server_that_is_ready_satisfies_the_doctor(server):
    done = docker("exec", server, "lingbi", "doctor", check=False)
    assert done.returncode == 0 and "FAIL" not in done.stdout, done.stdout


def test_the_health_check_sees_a_start_and_sigterm_lets_a_running_answer_finish(server_image):
    with running(server_image) as name:
        assert health(name) == "starting"
        wait_healthy(name)
        url, headers = address(name), {"Authorization": f"Bearer {key(name)}"}
        body = {"model": "internlm-xcomposer2-demo", "messages": [{"role": "user", "content": "hello"}]} | LONG_ANSWER
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            stopping = threading.Thread(target=docker, args=("stop", "--time=60", name))
            stopping.start()
            assert wait_until(lambda: httpx.get(f"{url}/ready").status_code == 503, 20)
            assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code == 503
            events = [line for line in lines if line.startswith("data: ")]
        stopping.join()
        assert events[-1] == "data: [DONE]" and json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert inspect(name)["State"]["ExitCode"] == 0
        assert worrying(logs(name), EXPECTED) == []


def test_it_ends_with_status_3_when_no_worker_can_be_kept_up(server_image):
    with running(server_image, "--env=LINGBI_KEYS_FILE=/tmp/keys") as name:
        # The worker ends at once, again and again, for want of a key file that can be read.
        assert wait_until(lambda: "spawned: 'worker-0'" in logs(name), 30)
        docker("exec", name, "sh", "-c", f"echo nonsense >/tmp/keys && kill -9 {worker_pid(name)}")
        assert wait_exit(name) == 3
        assert "no worker can be kept up" in logs(name) and "/tmp/keys line 1" in logs(name)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--env=LINGBI_MODLE=demo",), "LINGBI_MODLE='demo': there is no such setting; did you mean LINGBI_MODEL?"),
            (("--env=LINGBI_ENGINE=turbomind",), "engine turbomind needs an NVIDIA GPU"),
            (("--env=LINGBI_MODEL=7b", "--memory=2g"), "needs"),
            (("strat",), "there is no command 'strat'; use serve"),
        ],
    )
    def test_it_stops_with_one_sentence(self, server_image, arguments, said):
        flags = [argument for argument in arguments if argument.startswith("--")]
        command = [argument for argument in arguments if not argument.startswith("--")]
        done = docker("run", "--rm", "--network=none", *HARDENED, *flags, server_image, *command, check=False)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr

    def test_a_volume_that_belongs_to_root(self, server_image, tmp_path):
        tmp_path.chmod(0o755)
        volume = f"--volume={tmp_path}:/var/lib/lingbi"
        done = docker("run", "--rm", "--network=none", *HARDENED, volume, server_image, check=False)
        assert done.returncode == 2 and "chown -R 10001:10001" in done.stderr, done.stderr
        assert list(tmp_path.iterdir()) == []


class TestCommands:
    def run(self, image, *arguments) -> str:
        return docker(
            "run", "--rm", "--network=none", *HARDENED, f"--volume={ROOT}/docs:/docs:ro", image, *arguments
        ).stdout

    def test_plan(self, server_image):
        assert "internlm-xcomposer2-4khd-7b" in self.run(server_image, "plan")

    def test_pipeline(self, server_image):
        assert "红色的圆形" in self.run(server_image, "pipeline", "/docs/red-circle.png")

    def test_lmdeploy(self, server_image):
        assert "api_server" in self.run(server_image, "lmdeploy", "serve", "--help")

    def test_keys_of_a_running_server(self, server):
        made = docker("exec", server, "lingbi", "key", "add", "alice").stdout.strip()
        assert wait_until(lambda: is_let_in({"url": address(server), "key": made}), 10)
