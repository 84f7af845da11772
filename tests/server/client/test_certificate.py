"""A certificate is verified under a name that it holds, and by an authority that is trusted: nothing else passes."""

from pathlib import Path

import httpx
import pytest

from lingbi.client.certificate import chosen
from lingbi.errors import ConfigurationError
from lingbi.smoke.main import make_client
from tests.server.client.conftest import issue, serving


def status(url: str, ca_file: Path | None, by_held_name: bool = True) -> int:
    with make_client(url, 10, ca_file, by_held_name) as client:
        return client.get("/live").status_code


@pytest.mark.parametrize("names", ["DNS:lab.example", "IP:10.9.8.7", "DNS:*.lab.example", "DNS:*.a.b,DNS:c.d"])
def test_it_is_verified_under_a_name_that_it_holds(authority, tmp_path, names):
    with serving(issue(authority, tmp_path, names)) as url:
        assert status(url, authority / "ca.pem") == 200
        with pytest.raises(httpx.ConnectError, match="certificate is not valid for '127.0.0.1'"):
            status(url, authority / "ca.pem", by_held_name=False)


def test_an_authority_that_nobody_here_trusts_is_refused_with_the_remedy(authority, tmp_path):
    own = issue(authority, tmp_path, "DNS:lab.example")
    with serving(own) as url:
        with pytest.raises(httpx.ConnectError, match=r"unable to get local issuer.*; give .* with --ca-file"):
            status(url, None)
        with pytest.raises(httpx.ConnectError, match="unable to get local issuer"):
            status(url, own)  # what is not signed by itself vouches for nothing


def test_a_certificate_without_a_name_is_told(authority, tmp_path):
    with (
        serving(issue(authority, tmp_path, "")) as url,
        pytest.raises(ConfigurationError, match="holds no name"),
    ):
        status(url, authority / "ca.pem")


def test_a_written_out_name_is_taken_before_a_pattern():
    assert chosen(["*.lab.example", "lab.example"]) == "lab.example"
    assert chosen(["*.lab.example"]) == "lingbi.lab.example"
