"""What a client is told about its limits."""

from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.quotas.decision import Asked, Standing, decide
from lingbi.http.admission.quota_answers import duration, headers_of, refusal_of

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW, MIDNIGHT = 1_777_561_200, 1_777_564_800  # 2026-04-30 23:00 in Shanghai, and an hour later
KEY = KeyFacts("alice", group="vision")


def standing(
    measure="tokens", most=10_000, period="day", used=0, held=0, kind="key", resets_at=MIDNIGHT, is_beyond=False
):
    subject = "alice" if kind == "key" else "vision"
    return Standing(Limit(kind, subject, measure, period, most), resets_at, used, held, is_beyond)


def refusal(*standings, tokens=100, images=0):
    verdict = decide(KEY, standings, Asked(tokens, images), NOW)
    return refusal_of(verdict, verdict.denial, NOW, SHANGHAI)


@pytest.mark.parametrize(
    "found, asked, sentence, code, kind, retry",
    [
        (
            standing(used=10_120),
            {},
            "this key has used 10,120 of 10,000 tokens a day; the limit resets at 2026-05-01 00:00 (Asia/Shanghai)",
            "insufficient_quota",
            "insufficient_quota",
            "3600",
        ),
        (
            standing("requests", 20, "minute", 20, kind="group", resets_at=NOW + 25),
            {},
            "the group vision together has used 20 of 20 requests a minute; the limit resets at 2026-04-30 23:00 "
            "(Asia/Shanghai)",
            "rate_limit_exceeded",
            "requests",
            "25",
        ),
        (
            standing("images", 50, "month", 49, kind="member"),
            {"images": 2},
            "this key (as each of the group vision) has used 49 of 50 images a month, and this request has 2; the limit "
            "resets at 2026-05-01 00:00 (Asia/Shanghai)",
            "insufficient_quota",
            "insufficient_quota",
            "3600",
        ),
        (
            standing(used=9_000, held=1_000),
            {},
            "this key has used 9,000 of 10,000 tokens a day, and requests that run now may use what is left; try again in 2 s",
            "rate_limit_exceeded",
            "tokens",
            "2",
        ),
        (
            standing("images", 0),
            {"images": 1},
            "this key may use no images (0 a day); ask whoever runs this server",
            "insufficient_quota",
            "insufficient_quota",
            None,
        ),
        (
            standing("tokens", 0, "minute"),
            {},
            "this key may use no tokens (0 a minute); ask whoever runs this server",
            "insufficient_quota",
            "insufficient_quota",
            None,
        ),
        (
            standing("images", 4, "minute"),
            {"images": 5},
            "this request has 5 images, and this key may use at most 4 images a minute; send fewer",
            "rate_limit_exceeded",
            "images",
            None,
        ),
    ],
)
def test_a_refusal_says_which_limit_and_until_when(found, asked, sentence, code, kind, retry):
    told = refusal(found, **asked)
    assert (str(told), told.status, told.code, told.kind) == (sentence, 429, code, kind)
    assert told.headers.get("Retry-After") == retry
    assert ("x-should-retry" in told.headers) == (retry is None or int(retry) > 60)
    error = told.body()["error"]
    assert set(error) == {"message", "type", "param", "code", "quota"}
    assert error["quota"]["used"] == found.used and error["quota"]["resets_at"] == found.resets_at


def test_the_tightest_limit_of_each_measure_is_in_the_headers():
    standings = [
        standing(most=500, period="minute", used=100, held=50, resets_at=NOW + 20),
        standing(most=10_000, used=9_900),
        standing("requests", 60, "minute", 59, resets_at=NOW + 20),
        standing("requests", 10, "day", 9),
    ]
    verdict = decide(KEY, standings, Asked(60), NOW)
    assert headers_of(standings, NOW, verdict) == {
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "1h0m0s",
        "x-ratelimit-limit-requests": "10",  # of two with nothing left, the one that lasts longer
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1h0m0s",
    }


def test_a_refused_request_takes_nothing_of_what_is_left():
    told = refusal(standing("images", 50, used=49), standing(most=1000, used=10), images=2)
    assert told.headers["x-ratelimit-remaining-images"] == "1"
    assert told.headers["x-ratelimit-remaining-tokens"] == "990"


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (-3, "0s"), (1, "1s"), (59.6, "1m0s"), (61, "1m1s"), (3600, "1h0m0s"), (90061, "25h1m1s")],
)
def test_times_are_written_as_openai_does(seconds, text):
    assert duration(seconds) == text
