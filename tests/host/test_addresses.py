"""What is published on an address is asked for where this machine reaches it."""

import pytest

from host.addresses import reached_at, url_host
from host.start.decide import url


@pytest.mark.parametrize(
    ("published", "reached", "in_url"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("10.0.0.9", "10.0.0.9", "10.0.0.9"),
        ("::", "::1", "[::1]"),
        ("[::]", "::1", "[::1]"),
        ("::1", "::1", "[::1]"),
        ("[fd00::9]", "fd00::9", "[fd00::9]"),
    ],
)
def test_a_published_address_is_one_to_connect_to(published, reached, in_url):
    assert (reached_at(published), url_host(published)) == (reached, in_url)
    values = {"LINGBI_PUBLISH_ADDRESS": published, "LINGBI_GATEWAY_PORT": "6006"}
    assert url(values) == f"http://{in_url}:6006"
