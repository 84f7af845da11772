"""Settings stop before anything is done, and name what is wrong."""

import re

import pytest

from lingbi.errors import ConfigurationError
from lingbi.model import sizing
from lingbi.settings import Settings, load_settings, meaning
from tests.conftest import ROOT

# What a GPU with room for it gets, where the operator says nothing.
CHOSEN = {
    "max_batch_size": sizing.BATCHES[0],
    "prefill_tokens": sizing.STEPS[0][1],
    "quant_policy": sizing.STEPS[0][0],
    "cache_fraction": sizing.DEFAULT_SHARE,
}


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
        ("VERSION", "0.1.O"),
        ("ENGINE", "gpu"),
        ("CACHE_FRACTION", "1.5"),
        ("QUANT_POLICY", "2"),
        ("WORKERS", "-1"),
        ("GPU_MEMORY_MIB", "0"),
        ("GPU_MEMORY_MIB", "20G"),
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


@pytest.mark.parametrize(("name", "value"), CHOSEN.items())
def test_what_a_card_is_given_first_is_what_its_meaning_and_the_documents_say(name, value):
    assert getattr(Settings(), name) is None
    assert re.search(rf"; default: {re.escape(str(value))}(,|$)", meaning(name))
    for page in ("docs/settings.md", "docs/settings.zh-CN.md"):
        row = next(
            line for line in (ROOT / page).read_text().splitlines() if line.startswith(f"| `LINGBI_{name.upper()}` |")
        )
        assert re.match(rf"{re.escape(str(value))}(,|，|$)", row.split("|")[2].strip()), row


def test_an_unusable_value_is_told_what_the_setting_is_without_one(monkeypatch):
    monkeypatch.setenv("LINGBI_PREFILL_TOKENS", "1")
    with pytest.raises(ConfigurationError, match=r"takes memory; default: 2048, fewer where memory is short\)$"):
        load_settings()
