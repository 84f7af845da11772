"""No answer sends anybody to a host that the request made up."""

import http.client
import ssl

import httpx
import pytest
from starlette.responses import RedirectResponse

from lingbi_gateway.certificate import generate, names_in
from tests.gateway.conftest import Upstream, running_gateway

EVIL = "evil.example"


class Redirecting(Upstream):
    """A server that redirects as Starlette does for a slash too many: to the host that was asked for."""

    async def _serve(self, request):
        return RedirectResponse(str(request.url.replace(path="/elsewhere", query="a=1")), 307)


def location(port: int, path: str, host: str) -> tuple[int, str | None]:
    """(status, Location) of a plain request with this Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, b"{}", {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.getheader("location")
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/login/", "/v1/models/", "/ready", "/gradio_api/upload"])
def test_a_redirect_from_behind_stays_here(path):
    server = Redirecting()
    try:
        with running_gateway([server.address], UI=server.address) as gateway:
            assert location(gateway.port, path, EVIL) == (307, "/elsewhere?a=1")
    finally:
        server.stop()


def test_https_is_named_only_with_a_name_of_the_certificate(upstreams):
    (server,) = upstreams(1)
    names = "localhost,127.0.0.1,::1,Lab.Example"
    with running_gateway([server.address], UI=server.address, TLS="generated", TLS_NAMES=names) as gateway:
        for host in ("localhost:6006", "127.0.0.1", "[::1]:6006", "lab.example", "lab.example:443"):
            assert location(gateway.port, "/v1/x?y=1", host) == (308, f"https://{host}/v1/x?y=1"), host
        for host in (EVIL, "evil.lab.example", f"{EVIL}:6006", "lab.example.evil.example"):
            assert location(gateway.port, "/", host) == (400, None), host
        told = httpx.get(f"http://127.0.0.1:{gateway.port}/v1/models", headers={"Host": EVIL})
        assert told.json()["error"]["code"] == "https_only"
        assert location(gateway.port, "http://localhost/v1/x", EVIL) == (308, "https://localhost/v1/x")
        context = ssl.create_default_context(cafile=gateway.folder / "tls/certificate.pem")
        assert httpx.get(f"{gateway.url}/v1/models", verify=context, headers={"Host": EVIL}).status_code == 200


def test_the_names_of_a_given_certificate_are_read(tmp_path, upstreams):
    made = generate(tmp_path / "tls", ("127.0.0.1", "::1", "*.lab.example"))
    assert names_in(made.file) == ("127.0.0.1", "0:0:0:0:0:0:0:1", "*.lab.example")
    (server,) = upstreams(1)
    files = {"TLS_CERTIFICATE_FILE": made.file, "TLS_KEY_FILE": made.key_file}
    with running_gateway([server.address], TLS="given", **files) as gateway:
        assert location(gateway.port, "/", "gpu1.lab.example:6006") == (308, "https://gpu1.lab.example:6006/")
        assert location(gateway.port, "/", EVIL) == (400, None)
