"""https://lab.example/lingbi/: the page and the API behind a lab's own web server, as docs/gateway.md tells to set it up."""

import contextlib
import os
import re
import shutil
import subprocess

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests import debian
from tests.conftest import ROOT, answers, free_port
from tests.gateway.conftest import SEARCH, running_gateway

PROXIES = {"TRUSTED_PROXIES": "127.0.0.1"}
LAB = {"Host": "lab.example"}


def example(language: str, gateway: int) -> str:
    """The document's example, for this gateway's port."""
    (found,) = re.findall(rf"```{language}\n(.*?/lingbi.*?)```", (ROOT / "docs/gateway.md").read_text(), re.S)
    return found.replace(":6006", f":{gateway}")


@contextlib.contextmanager
def running_nginx(folder, gateway: int):
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; "
        f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; "
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; "
        f"server {{ listen 127.0.0.1:{port}; {example('nginx', gateway)} }} }}"
    )
    nginx = shutil.which("nginx", path=SEARCH)
    with running([nginx, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], port) as url:
        yield url


@contextlib.contextmanager
def running_caddy(folder, gateway: int):
    debian.ensure("caddy", has=lambda: shutil.which("caddy"))
    port = free_port()
    file = folder / "Caddyfile"
    file.write_text(f"{{\n admin off\n}}\nhttp://:{port} {{\n{example('caddy', gateway)}}}\n")
    with running(["caddy", "run", "--config", file, "--adapter", "caddyfile"], port, HOME=str(folder)) as url:
        yield url


@contextlib.contextmanager
def running(command: list, port: int, **environment):
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: answers(f"{url}/lingbi/healthz"), 20)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("proxy", [running_nginx, running_caddy])
def test_the_page_and_the_api_work_below_a_path(page, fake_api, tmp_path, proxy):
    tmp_path.chmod(0o755)
    servers = [fake_api.url.removeprefix("http://")]
    with running_gateway(servers, UI=page.url.removeprefix("http://"), **PROXIES) as gateway:
        with proxy(tmp_path, gateway.port) as url, httpx.Client(base_url=url, headers=LAB) as visitor:
            config = visitor.get("/lingbi/config", headers={"Origin": "http://lab.example"})
            assert config.status_code == 200 and config.json()["root"] == "http://lab.example/lingbi"
            assert visitor.get("/lingbi/config", headers={"Origin": "http://elsewhere.example"}).status_code == 403
            html = visitor.get("/lingbi/").text
            assert "http://lab.example/lingbi" in html and visitor.get("/lingbi/theme.css").status_code == 200
            files = {"files": ("a.gif", b"GIF89a")}
            assert visitor.post("/lingbi/gradio_api/upload", files=files).status_code == 200
            assert visitor.get("/lingbi/v1/models").json() == {"data": []}
        direct = httpx.get(f"{gateway.url}/config").json()  # its own address goes on to work
        assert direct["root"] == gateway.url


def test_an_untrusted_proxy_moves_nothing(page, fake_api):
    sent = {"X-Forwarded-Prefix": "/lingbi", "X-Forwarded-Host": "elsewhere.example"}
    servers = [fake_api.url.removeprefix("http://")]
    with running_gateway(servers, UI=page.url.removeprefix("http://")) as gateway:
        assert httpx.get(f"{gateway.url}/config", headers=sent).json()["root"] == gateway.url
    with running_gateway(servers, UI=page.url.removeprefix("http://"), **PROXIES) as gateway:
        for prefix in ("//elsewhere.example", "/a/../b", "/a b", "lingbi", "/a;b"):
            found = httpx.get(f"{gateway.url}/config", headers={"X-Forwarded-Prefix": prefix}).json()
            assert found["root"] == gateway.url, prefix


def test_a_request_without_a_host_is_answered(page, fake_api):
    servers = [fake_api.url.removeprefix("http://")]
    with running_gateway(servers, UI=page.url.removeprefix("http://")) as gateway:
        answer = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http1.0", "-H", "Host:", gateway.url + "/"],
            capture_output=True,
            text=True,
        )
        assert answer.stdout == "200"
