"""What the pages of accounts show of numbers, days, limits and tables, without a server."""

import datetime
import re
import string
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from lingbi_ui.accounts import charts, figures, forms, quota, report
from lingbi_ui.accounts.rows import PAGE_ROWS, Filter, limits_of, page_of, row_of
from lingbi_ui.accounts.site import FOLDER, Addresses, Site, root_of
from lingbi_ui.accounts.use import span_of, summed, top, trend
from lingbi_ui.accounts.words import WORDS

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = 1_780_000_000.0
TODAY = datetime.date(2026, 5, 28)
HURTFUL = "<script>alert(1)</script>"


def test_both_languages_say_the_same():
    for name, pair in WORDS.items():
        english, chinese = (list(string.Formatter().parse(text)) for text in pair)
        assert sorted(part[1] for part in english if part[1]) == sorted(part[1] for part in chinese if part[1]), name
        words = ["".join(part[0] for part in text) for text in (english, chinese)]
        assert not re.search("[一-鿿]", words[0]), name
        assert bool(re.search("[a-z]", words[0])) == bool(re.search("[一-鿿]", words[1])), name


def test_every_word_is_shown_and_every_shown_word_is_known():
    text = "".join(
        file.read_text() for file in FOLDER.rglob("*") if file.suffix in (".py", ".html") and file.stem != "words"
    )
    built = ("state_", "kind_", "limit_", "limits_", "subject_", "batch_", "file_")  # from what the API says
    assert [name for name in WORDS if not re.search(rf"['\"]{name}['\"]", text) and not name.startswith(built)] == []
    templates = "".join(file.read_text() for file in FOLDER.rglob("*.html"))
    assert set(re.findall(r"say\('(\w+)'[,)]", templates)) <= WORDS.keys()


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (figures.number(1234567), "1,234,567"),
        (figures.number(None), "–"),
        (figures.compact(2_000_000), "2M"),
        (figures.compact(1500), "1500"),
        (figures.compact(0), "0"),
        (figures.compact(None), ""),
        (figures.hours(0), "0.0"),
        (figures.hours(90), "0.025"),
        (figures.hours(7200), "2.0"),
        (figures.percent(1, 3), "33 %"),
        (figures.percent(0, 0), "100 %"),
        (figures.moment(0), "1970-01-01 00:00"),
        (figures.moment(1e30), "–"),
        (figures.moment(None), "–"),
        (figures.last_day(datetime.datetime(2026, 6, 1, tzinfo=SHANGHAI).timestamp(), SHANGHAI), "2026-05-31"),
        (figures.last_day(NOW, SHANGHAI), figures.moment(NOW, SHANGHAI)),
        (figures.last_day(None), "–"),
        (str(figures.zone_of("Nowhere/At all")), "UTC"),
        (str(figures.zone_of("../etc/passwd")), "UTC"),
        (str(figures.zone_of("Asia/Shanghai")), "Asia/Shanghai"),
    ],
)
def test_figures(found, text):
    assert found == text


def test_a_key_that_ends_on_a_day_of_23_hours_works_until_midnight():
    end = datetime.datetime(2026, 3, 30, tzinfo=(berlin := ZoneInfo("Europe/Berlin"))).timestamp()
    assert figures.moment(end, berlin) == "2026-03-30 00:00" and figures.last_day(end, berlin) == "2026-03-29"


def test_the_chart_is_as_high_as_its_tallest_day():
    drawn = charts.bars([(30, 10), (0, 0), (5, 15)])
    heights = [float(height) for height in re.findall(r' height="([\d.]+)"', drawn)]
    assert heights == [75, 25, 12.5, 37.5] and 'viewBox="0 0 30 100"' in drawn
    assert "<rect" not in charts.bars([]) and "<rect" not in charts.bars([(0, 0)])


@pytest.mark.parametrize(
    ("used", "most", "kind", "width"),
    [(0, 10, "low", 0), (8, 10, "high", 80), (12, 10, "over", 100), (0, 0, "over", 100)],
)
def test_a_limits_bar(used, most, kind, width):
    drawn = charts.level(used, most)
    assert f'class="level {kind}"' in drawn and f'class="used" width="{width}.00"' in drawn


@pytest.mark.parametrize(
    ("asked", "since", "last"),
    [
        ({}, "2026-04-29", "2026-05-28"),
        ({"since": "2026-05-01", "until": "2026-05-03"}, "2026-05-01", "2026-05-03"),
        ({"since": "2026-06-01", "until": "2026-05-03"}, "2026-04-04", "2026-05-03"),
        ({"since": "x", "until": "'; drop"}, "2026-04-29", "2026-05-28"),
        ({"since": "1026-05-01"}, "2025-05-28", "2026-05-28"),
        ({"until": "9999-12-31"}, "2026-04-29", "2026-05-28"),
        ({"until": "0001-01-01"}, "0001-01-01", "0001-01-01"),
    ],
)
def test_the_days_that_are_asked_for(asked, since, last):
    span = span_of(asked, TODAY)
    assert (span.since.isoformat(), span.last.isoformat()) == (since, last)
    assert span.days[0] == since and span.days[-1] == last and len(span.days) <= 366


def test_months():
    assert (
        report.months(datetime.date(2026, 2, 1))[:3] == ["2026-02", "2026-01", "2025-12"]
        and len(report.months(TODAY)) == 13
    )
    assert len(report.days_of("2026-02", TODAY)) == 28 and report.days_of("2026-05", TODAY)[-1] == "2026-05-28"
    assert report.days_of("2026-06", TODAY) == []
    for month in ("0000-01", "9999-12", "2026-13", "2026-5", "2026-05-01", "٢٠٢٦-05"):
        assert not report.MONTH.fullmatch(month)


def test_the_report_is_computed_by_no_spreadsheet():
    row = {"day": "2026-05-01", "group": "", "owner": "=1+1", "key": "@x", "model": "李,明"} | summed([{"requests": 2}])
    text = report.file_of([row]).decode()
    head, line = text.removeprefix("\ufeff").splitlines()
    assert text[0] == "\ufeff" and head.startswith("day,group,owner,key,model,requests,prompt_tokens")
    assert line.startswith("2026-05-01,,'=1+1,'@x,\"李,明\",2.0,")


def test_sums_and_who_uses_most():
    rows = [{"prompt_tokens": 3, "requests": 1}, {"prompt_tokens": 2, "completion_tokens": 5, "gpu_seconds": None}]
    assert summed(rows) == summed([]) | {"prompt_tokens": 5, "completion_tokens": 5, "requests": 1}
    sums = {name: summed([{"prompt_tokens": tokens}]) for name, tokens in (("b", 5), ("a", 5), ("c", 9))}
    assert [name for name, _ in top(sums)] == ["c", "a", "b"]
    days = {"2026-05-28": summed([{"prompt_tokens": 7, "completion_tokens": 1}])}
    drawn = trend(days, span_of({}, TODAY), "tokens")
    assert drawn[-1] == (7, 1) and set(drawn[:-1]) == {(0, 0)} and len(drawn) == 30


KEY = {"kind": "key", "state": "active", "owner": "", "note": "", "group": None, "is_admin": False, "models": None}
KEY |= dict.fromkeys(("created_at", "ends_at", "revoked_at", "weight", "concurrency"))
KEY |= {"limits": {}, "in_force": {"limits": []}}


def rows_of(*keys, **use):
    return [row_of(KEY | {"name": name} | more, use.get(name, {})) for name, more in keys]


def test_keys_are_filtered_sorted_and_cut_into_pages():
    rows = rows_of(
        ("b", {"owner": "Zoë", "group": "lab"}),
        ("A", {"owner": "李明", "ends_at": NOW - 1, "state": "ended"}),
        ("c", {"owner": "zoé", "state": "revoked", "ends_at": NOW + 9}),
        b={"prompt_tokens": 3},
        c={"completion_tokens": 9},
    )

    def names(**asked):
        return [row.name for row in page_of(rows, Filter.of(asked)).rows]

    assert names() == ["A", "b", "c"] and names(sort="use", down="1") == ["c", "b", "A"]
    assert names(owner="ZOË") == ["b"] and names(owner="明") == ["A"] and names(name="B") == ["b"]
    assert names(group="lab") == ["b"] and names(state="revoked") == ["c"] and names(state="ended") == ["A"]
    assert names(sort="ends") == ["A", "c", "b"] and names(sort="'; drop", page="-1", state="x") == ["A", "b", "c"]


def test_pages_of_a_thousand_keys():
    rows = rows_of(*((f"key-{number:04}", {}) for number in range(1000)))
    wanted = Filter.of({"page": "10", "sort": "use", "down": "1", "name": "key"})
    page = page_of(rows, wanted)
    assert (page.pages, page.first, page.last, len(page.rows)) == (10, 901, 1000, PAGE_ROWS)
    assert page.rows[0].name == "key-0900", "equal ones are in the order of their names"
    assert page_of(rows, Filter.of({"page": "999999"})).page == 10
    assert wanted.query(page=9) == {"name": "key", "sort": "use", "down": "1", "page": "9"}
    assert page_of([], Filter()).count == 0 and Filter.of({"page": "٣"}).page == 1


def test_how_much_of_its_limits_is_used():
    limits = (
        *limits_of({"tokens": {"month": 100, "minute": 5}}, "key"),
        *limits_of({"requests": {"day": 9}}, "group"),
        *limits_of({"tokens": {"day": 20}}, "member"),
    )
    reports = {
        "month": [
            {"key": "a", "status": 200, "prompt_tokens": 30, "completion_tokens": 10},
            {"key": "a", "status": 429, "requests": 70},
            {"key": "b", "status": 200, "prompt_tokens": 500},
        ],
        "day": [
            {"key": "a", "status": 499, "requests": 2, "prompt_tokens": 4},
            {"key": "a", "status": 401, "requests": 90},
            {"key": "b", "status": 200, "requests": 5},
            {"key": "c", "status": 200, "requests": 5},
        ],
    }
    used = quota.used_of(reports, {"a": "lab", "b": "lab", "c": ""})
    told = {
        (one.subject_kind, one.measure, one.period): (one.used, one.most)
        for one in quota.told(limits, "a", "lab", used)
    }
    assert told == {
        ("key", "tokens", "month"): (40, 100),
        ("member", "tokens", "day"): (4, 20),
        ("group", "requests", "day"): (7, 9),
        ("key", "tokens", "minute"): (None, 5),
    }


def test_forms_are_read_and_small():
    assert forms.fields_of(b"a=1&b=%E6%9D%8E+x&a=2") == {"a": "2", "b": "李 x"}
    for body in (b"&".join(b"a=1" for _ in range(61)), b"a=%FF", b"\xff\xfe=1"):
        with pytest.raises(forms.Unfit):
            forms.fields_of(body)
    assert forms.whole({"a": "1,000"}, "a") == 1000 and forms.whole({}, "a") is None
    assert forms.whole({"a": "9" * 31}, "a") == int("9" * 31), "how large a number may be is the API's to say"
    for text in ("-1", "1.5", "unlimited", "1e9", "٣", "9" * 41):
        with pytest.raises(forms.Unfit):
            forms.whole({"a": text}, "a")
    assert forms.names({"a": " x, y，z ,"}, "a") == ["x", "y", "z"] and forms.names({"a": " , "}, "a") is None
    for shown, asked in (("all", "all"), ("全部", "all"), ("none", "none"), ("无", "none"), ("全部, x", None)):
        assert forms.names({"a": shown}, "a") == ([asked] if asked else ["全部", "x"]), "the words that the page shows"
    sent = forms.limits({"key:tokens:month": "2M", "key:images:day": ""}, "key")
    assert sent["tokens"] == {"month": "2M", "day": None, "minute": None} and sent["images"]["day"] is None


def request(prefix: str = "", language: str = "en"):
    return SimpleNamespace(headers={"x-forwarded-prefix": prefix, "accept-language": language})


@pytest.mark.parametrize(
    ("prefix", "root"),
    [("", ""), ("/lingbi", "/lingbi"), ("/a/b/", "/a/b"), ("//elsewhere.example", ""), ("/a/../b", ""), ('/a"b', "")],
)
def test_addresses_are_below_the_path_of_the_page(prefix, root):
    assert root_of(request(prefix)) == root
    assert Addresses(root)("/admin/key", name="ui/a&b") == f"{root}/admin/key?name=ui%2Fa%26b"


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_what_people_wrote_is_shown_as_text(language):
    found = Site().tell(request(language=language), 400, "refused", "/admin", why=HURTFUL)
    text = found.body.decode()
    assert "&lt;script&gt;" in text and "<script" not in text and f'lang="{language}"' in text
    assert (
        found.headers["cache-control"] == "no-store"
        and "default-src 'none'" in found.headers["content-security-policy"]
    )
