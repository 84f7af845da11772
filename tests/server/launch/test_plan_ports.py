"""A port on which this user cannot listen is told with what helps."""

import os
from pathlib import Path

import pytest

from lingbi.errors import ConfigurationError
from lingbi.launch.plan import check_port

FIRST_OF_ALL = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def test_an_address_of_another_machine_is_not_told_to_end_what_uses_it():
    with pytest.raises(ConfigurationError, match="; set LINGBI_GATEWAY_HOST to an address of this machine$"):
        check_port("192.0.2.1", 6006, "LINGBI_GATEWAY_PORT")


@pytest.mark.skipif(FIRST_OF_ALL < 444, reason="anybody may take port 443 here")
def test_a_port_of_roots_is_told_as_that():
    os.seteuid(65534)
    try:
        with pytest.raises(
            ConfigurationError, match="only root may take it: set LINGBI_GATEWAY_PORT to one above 1023"
        ):
            check_port("127.0.0.1", 443, "LINGBI_GATEWAY_PORT")
    finally:
        os.seteuid(0)
