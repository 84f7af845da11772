"""/admin before the real server: who gets in, and what an administrator sees and does."""

import re
import time

import httpx
import pytest

from lingbi_ui.accounts.entry import COOKIE
from lingbi_ui.accounts.sessions import IDLE_S, Sessions
from tests.ui.accounts.conftest import administrator

SHOWN = ("/admin", "/admin/keys", "/admin/key?name=default", "/admin/groups", "/admin/group?name=x", "/admin/usage.csv")
SENT = (
    "/admin/logout",
    "/admin/keys",
    "/admin/key/change",
    "/admin/key/limits",
    "/admin/key/rotate",
    "/admin/key/end",
    "/admin/groups",
    "/admin/group/change",
    "/admin/group/remove",
)
OWNERS = (
    "'; drop table keys; --",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=1+1",
    "李明 & Söhne",
)


def made(admin, name: str, **values) -> str:
    """A new key, made with the form."""
    admin.open("/admin/keys")
    assert admin.send("/admin/keys", {"name": name} | values).status_code == 200, admin.text
    return admin.new_key()


def accepts(api, key: str) -> bool:
    """Whether the server answers this key."""
    status = httpx.get(f"{api[0]}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code
    assert status in (200, 401)
    return status == 200


def comes(check, timeout_s: float = 15.0) -> bool:
    """Whether it comes true: a worker looks for changes of keys every two seconds."""
    ends = time.monotonic() + timeout_s
    while not (is_true := check()) and time.monotonic() < ends:
        time.sleep(0.2)
    return is_true


def test_without_a_login_everything_is_refused(api):
    with administrator(api[0]) as stranger:
        for path in SHOWN:
            answer = stranger.client.get(path, follow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (303, "/admin/login"), path
        for path in SENT:
            assert stranger.client.post(path, data={"name": "default", "sure": "1"}).status_code == 401, path
        assert stranger.client.cookies.get(COOKIE) is None


def test_only_an_administrators_key_lets_in(api, admin):
    plain = made(admin, "plain-one", owner="Ana")
    assert comes(lambda: accepts(api, plain))
    for key, status in (("lb-wrong", 401), (plain, 403), ("", 401), ("ключ\r\nX: y", 401), ("x" * 300, 401)):
        with administrator(api[0]) as other:
            answer = other.log_in(key)
            assert answer.status_code == status and 'role="alert"' in answer.text, key
            assert (not key or key not in answer.text) and other.client.cookies.get(COOKIE) is None
    with administrator(api[0]) as third:
        assert third.log_in(api[1]).url.path == "/admin"
        assert api[1] not in third.page.text and api[1] not in str(third.client.cookies.jar)


def test_attempts_have_a_rate(api):
    with administrator(api[0]) as other:
        statuses = [other.log_in("lb-wrong").status_code for _ in range(7)]
        assert statuses[:5] == [401] * 5 and statuses[-1] == 429 and other.page.headers["retry-after"]
        assert other.log_in(api[1]).status_code == 429


def test_a_form_that_is_not_of_this_session_changes_nothing(api, admin):
    made(admin, "kept")
    with administrator(api[0]) as other:
        other.log_in(api[1])
        foreign = other.form("/admin/logout")["form"]
    for token in (None, "", "x", foreign):
        fields = {"name": "kept", "sure": "1"} | ({} if token is None else {"form": token})
        for path in SENT:
            assert admin.client.post(path, data=fields).status_code == 403, (path, token)
    assert admin.client.post("/admin/key/end", content=b"\xff" * 50).status_code == 403
    admin.open("/admin/key?name=kept")
    assert "in use" in admin.text


def test_the_login_form_has_to_come_from_here(api):
    with administrator(api[0]) as other:
        for form in ("", "x" * 43):
            assert other.client.post("/admin/login", data={"form": form, "key": api[1]}).status_code == 403
        assert other.client.cookies.get(COOKIE) is None


def test_a_session_that_was_idle_is_over(api):
    now = [1000.0]
    with administrator(api[0], Sessions(lambda: now[0])) as found:
        found.log_in(api[1])
        token = found.form("/admin/logout")["form"]
        now[0] += IDLE_S
        assert found.open("/admin/keys").url.path == "/admin/login" and "has ended" in found.text
        assert found.client.post("/admin/keys", data={"form": token, "name": "late"}).status_code == 401


def test_logout(api, admin):
    before = dict(admin.client.cookies)
    assert admin.send("/admin/logout").url.path == "/admin/login" and admin.client.cookies.get(COOKIE) is None
    answer = admin.client.get("/admin", headers={"Cookie": f"{COOKIE}={before[COOKIE]}"}, follow_redirects=False)
    assert answer.status_code == 303, "the session is over, whoever has its cookie"


def test_an_administrator_who_is_one_no_longer_is_out(api, admin):
    key = made(admin, "second-admin", is_admin="1")
    with administrator(api[0]) as second:
        assert comes(lambda: second.log_in(key).url.path == "/admin" or time.sleep(2))
        admin.open("/admin/key?name=second-admin")
        admin.send("/admin/key/end", {"sure": "1"})
        assert comes(lambda: second.open("/admin/keys").url.path == "/admin/login")
        assert "has ended" in second.text


def test_the_life_of_a_key(api, admin):
    """Made, changed, limited, rotated and ended; its secret is shown once."""
    key = made(admin, "course-1", owner="李明", note="until May", ends="2099-05-31")
    assert "course-1" in admin.text and key.startswith("lb-")
    assert (
        key not in admin.open("/admin/key?name=course-1").text and "2099-05-31" in admin.text and "李明" in admin.text
    )
    assert comes(lambda: accepts(api, key))
    admin.send("/admin/key/change", {"owner": "Ana", "ends": "", "concurrency": "3", "weight": "2"})
    assert "course-1 was changed" in admin.text and "Ana" in admin.text and "2099" not in admin.text
    admin.send("/admin/key/limits", {"key:tokens:month": "2M", "key:images:day": "0"})
    assert "2,000,000 tokens a month" in admin.text and "0 pictures a day" in admin.text
    assert admin.form("/admin/key/limits")["key:tokens:month"] == "2M"
    admin.send("/admin/key/limits", {"key:tokens:month": ""})
    assert "tokens a month" not in admin.text.partition("Change")[0] and "0 pictures a day" in admin.text
    admin.send("/admin/key/rotate", {"overlap_h": "0"})
    second = admin.new_key()
    assert second != key and comes(lambda: accepts(api, second) and not accepts(api, key))
    admin.open("/admin/key?name=course-1")
    assert admin.send("/admin/key/end").status_code == 400, "it was not confirmed"
    admin.open("/admin/key?name=course-1")
    admin.send("/admin/key/end", {"sure": "1"})
    assert "The key course-1 has ended" in admin.text and comes(lambda: not accepts(api, second))


def test_the_life_of_a_group(api, admin):
    admin.open("/admin/groups")
    admin.send("/admin/groups", {"name": "students", "note": "=cmd"})
    assert "The group students was made" in admin.text
    admin.send("/admin/group/change", {"group:tokens:month": "50M", "member:requests:day": "200", "concurrency": "8"})
    assert "50,000,000 tokens a month for the whole group: 0 used (0 %)" in admin.text
    assert "200 requests a day for each key of the group" in admin.text
    made(admin, "student-1", group="students")
    assert "200 requests a day for each key of the group: 0 used (0 %)" in admin.text
    admin.open("/admin/keys?group=students")
    assert "1 keys" in admin.text and "student-1" in admin.text
    admin.open("/admin/group?name=students")
    admin.send("/admin/group/remove", {"sure": "1"})
    assert "The group students was removed" in admin.text and "students" not in admin.text.partition("was removed")[2]


@pytest.mark.parametrize("page", ["key", "group"])
def test_the_word_for_all_models_and_a_slip_in_a_models_name(admin, page):
    name = f"models-of-a-{page}"
    admin.open(f"/admin/{page}s")
    admin.send(f"/admin/{page}s", {"name": name})
    for word in ("all", "全部"):
        admin.open(f"/admin/{page}?name={name}")
        assert admin.send(f"/admin/{page}/change", {"models": "vl-7b, vl7b"}).status_code == 200, admin.text
        assert "Check these names of models: vl7b." in admin.text
        assert admin.form(f"/admin/{page}/change")["models"] == "internlm-xcomposer2-vl-7b, vl7b"
        admin.send(f"/admin/{page}/change", {"models": word})
        assert "was changed" in admin.text and "Check these" not in admin.text
        assert admin.form(f"/admin/{page}/change")["models"] == "", "every model"
    assert admin.send(f"/admin/{page}/change", {"models": "无"}).status_code == 400 and "`all`" in admin.text


@pytest.mark.parametrize("owner", OWNERS)
def test_what_people_write_stays_text(admin, owner):
    name = f"odd-{OWNERS.index(owner)}"
    made(admin, name, owner=owner, note=owner)
    for path, query in (
        ("/admin/key", {"name": name}),
        ("/admin/keys", {}),
        ("/admin/keys", {"name": "odd", "owner": owner}),
    ):
        page = admin.open(path, params=query, headers={"Accept-Language": "zh-CN"})
        assert page.status_code == 200 and "<script" not in page.text and "<img" not in page.text
        assert owner in admin.text, query
    assert "default" in admin.open("/admin/keys").text


@pytest.mark.parametrize("most", ["-1", "unlimited", "1" + "0" * 30, "1.5", "<script>"])
def test_what_the_api_refuses_is_a_sentence_and_changes_nothing(admin, most):
    made(admin, f"bad-{abs(hash(most))}")
    name = admin.form("/admin/key/limits")["name"]
    answer = admin.send("/admin/key/limits", {"key:tokens:day": most})
    assert answer.status_code == 400 and "The server refused this" in admin.text and "<script" not in answer.text
    admin.open(f"/admin/key?name={name}")
    assert "no limits" in admin.text


def test_a_key_twice_and_names_that_are_none(admin):
    made(admin, "twice")
    for name in ("twice", "a/b", "", "'; drop table keys", "x" * 65):
        admin.open("/admin/keys")
        answer = admin.send("/admin/keys", {"name": name})
        assert answer.status_code in (400, 409), (name, answer.status_code)
    assert (
        admin.open("/admin/key?name=never").status_code == 404
        and admin.open("/admin/group?name=%2e%2e").status_code == 404
    )
    admin.open("/admin/keys")
    form = admin.form("/admin/keys")["form"]
    for name in ("never", "..", "", "../groups/students"):
        fields = {"form": form, "name": name, "sure": "1"}
        assert admin.client.post("/admin/key/end", data=fields).status_code in (400, 404), name


def test_the_api_is_away(nobody_url, api):
    with administrator(nobody_url) as found:
        answer = found.log_in("lb-key")
        assert (
            answer.status_code == 503 and "cannot be reached" in found.text and found.client.cookies.get(COOKIE) is None
        )
    sessions = Sessions()
    token = sessions.begin("lb-key", True)
    with administrator(nobody_url, sessions) as found:
        found.client.cookies.set(COOKIE, token)
        for path in SHOWN[:5]:
            assert found.open(path).status_code == 503 and "cannot be reached" in found.text
        assert sessions.find(token), "it may come back"


def test_the_overview_counts_what_was_asked(api, admin):
    key = made(admin, "asker")
    assert comes(lambda: accepts(api, key))
    body = {"model": "internlm-xcomposer2-demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    answer = httpx.post(
        f"{api[0]}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    tokens = answer.json()["usage"]["total_tokens"]
    row = re.compile(rf">asker</a></th><td class=\"number\">1</td><td class=\"number\">{tokens:,} <small>")
    assert comes(lambda: row.search(admin.open("/admin").text)), admin.text
    assert "internlm-xcomposer2-demo" in admin.text and "Ready" in admin.text
    assert len(re.findall(r'<rect class="part0"', admin.page.text)) >= 1
    admin.open("/admin/keys?name=asker")
    assert f"{tokens:,}" in admin.text
    for chart in ("requests", "images", "gpu", "'; drop"):
        assert admin.open("/admin", params={"chart": chart, "since": "x", "until": "2026-13-99"}).status_code == 200


def test_the_monthly_report(admin):
    made(admin, "reported")
    month = re.search(r"<option>(\d{4}-\d\d)</option>", admin.open("/admin").text)[1]
    report = admin.open(f"/admin/usage.csv?month={month}")
    assert report.status_code == 200 and report.headers["content-type"].startswith("text/csv")
    assert report.headers["content-disposition"] == f'attachment; filename="lingbi-{month}.csv"'
    assert report.text.startswith("\ufeffday,group,owner,key,model,requests,")
    for month in ("", "2026-13", "9999-12", "0000-01", "2026-05\r\nX: y"):
        assert admin.open("/admin/usage.csv", params={"month": month}).status_code == 400
