"""What a visitor is told of a limit."""

import pytest

from lingbi_ui.api import fault_of
from lingbi_ui.limits import left_told, limit_told
from lingbi_ui.words import CHINESE, ENGLISH

DAY = {"subject": "member", "name": "visitors", "measure": "tokens", "period": "day", "most": 100_000, "used": 99_980}


def test_the_limit_in_the_way_is_told_with_its_numbers():
    quota = DAY | {"resets_at": 5 * 3600 + 1000}
    assert limit_told(quota, ENGLISH, 1000) == " You have used 99,980 of 100,000 tokens a day; this resets in 5 hours."
    assert limit_told(quota, CHINESE, 1000) == "每天 token 数已使用 99,980，上限为 100,000；5 小时后重置。"
    assert "Your group" in limit_told(quota | {"subject": "group"}, ENGLISH, 1000)


@pytest.mark.parametrize("quota", [{}, DAY | {"measure": "<b>"}, DAY | {"period": "year"}])
def test_what_is_no_limit_adds_nothing(quota):
    assert limit_told(quota, ENGLISH, 0) == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-3, "1 seconds"),
        (59, "59 seconds"),
        (119, "119 seconds"),
        (121, "2 minutes"),
        (7200, "2 hours"),
        (2e6, "23 days"),
    ],
)
def test_time_is_told_in_the_largest_unit_that_is_there_twice(seconds, told):
    assert left_told(seconds, ENGLISH) == told


def test_a_refusal_brings_its_limit_along():
    body = b'{"error": {"code": "insufficient_quota", "message": "m", "quota": {"measure": "tokens"}}}'
    assert fault_of(429, body).quota == {"measure": "tokens"}
    assert fault_of(429, b'{"error": {"code": "insufficient_quota", "message": "m"}}').quota is None
    assert fault_of(429, b'{"error": []}').code == "error_busy"
