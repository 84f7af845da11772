"""Settings stop before anything is done, and name what is wrong."""

import pytest

from lingbi.errors import ConfigurationError
from lingbi.settings import Settings, load_settings


def test_every_setting_has_a_default_and_a_description():
    assert [name for name, field in Settings.model_fields.items() if field.is_required() or not field.description] == []


def test_unknown_setting_is_refused_with_the_nearest_name(monkeypatch):
    monkeypatch.setenv("LINGBI_MODLE", "demo")
    with pytest.raises(ConfigurationError, match="LINGBI_MODLE='demo'.*did you mean LINGBI_MODEL"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "a"),
        ("ENGINE", "gpu"),
        ("CACHE_FRACTION", "1.5"),
        ("QUANT_POLICY", "2"),
        ("WORKERS", "-1"),
    ],
)
def test_unusable_value_is_refused_by_name_and_value(monkeypatch, name, value):
    monkeypatch.setenv(f"LINGBI_{name}", value)
    with pytest.raises(ConfigurationError, match=f"LINGBI_{name}='{value}'"):
        load_settings()


def test_overrides_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("LINGBI_PORT", "5000")
    assert load_settings(port=None).port == 5000
    assert load_settings(port=6000).port == 6000
