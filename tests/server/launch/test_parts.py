"""What .env says to other parts is judged by the first container that runs."""

import pytest

from lingbi.errors import ConfigurationError
from lingbi.launch.parts import check_parts, fault_of
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LINGBI_GATEWAY_PROT", "6006", "there is no such setting; did you mean LINGBI_GATEWAY_PORT?"),
        ("LINGBI_UI_MAX_PICTURE", "3", "there is no such setting; did you mean LINGBI_UI_MAX_PICTURES?"),
        ("LINGBI_GATEWAY_TLS", "on", "input should be 'off', 'generated' or 'given' (off, generated"),
        ("LINGBI_GATEWAY_PORT", "65536", "input should be less than or equal to 65535 (port that the gateway"),
        ("LINGBI_UI_KEEP_FILES_H", "day", "input should be a valid integer"),
        ("LINGBI_UI_API_URL", "gateway", "string should match pattern"),
    ],
)
def test_what_another_part_would_refuse_is_refused_by_name(name, value, said):
    with pytest.raises(ConfigurationError) as caught:
        check_parts({name: value})
    assert str(caught.value).startswith(f"{name}={value!r}: {said}")


def test_what_compose_and_a_first_env_give_is_taken():
    given = {"LINGBI_GATEWAY_PORT": "6006", "LINGBI_GATEWAY_SERVERS": "", "LINGBI_SUBNET": "172.30.76"}
    check_parts(
        given | {"LINGBI_VERSION": (ROOT / "VERSION").read_text().strip(), "LINGBI_GPU_IDS": "", "PATH": "/bin"}
    )
    check_parts({"LINGBI_MODLE": "the server's own settings are not judged here"})


def test_bounds_are_read_as_json_schema_means_them():
    assert fault_of("0.5", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}) == ""
    assert "less than 1" in fault_of("1", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
    assert fault_of("true", {"type": "boolean"}) == "" and "boolean" in fault_of("maybe", {"type": "boolean"})
