"""/batches before the real server: who sees which batches, and what they can do with them."""

import json
import re

import httpx
import pytest

from lingbi_ui.accounts.entry import BATCHES, COOKIE
from tests.ui.accounts.conftest import LOGINS, Administrator, administrator
from tests.ui.accounts.test_admin import accepts, comes, made
from tests.ui.accounts.test_own_use import logged_in

SHOWN = ("/batches", "/batches/batch?name=batch_1", "/batches/file?name=batch_1&kind=output")
SENT = ("/batches/logout", "/batches/cancel", "/batches/submit")
HURTFUL = "<script>alert(1)</script>"


def line(custom_id: str, **body) -> dict:
    asked = {"model": "internlm-xcomposer2-demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked | body}


def jsonl(*lines: dict) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def submit(owner: Administrator, content: bytes, name: str = "lines.jsonl", **fields) -> httpx.Response:
    """The form of /batches with this file."""
    owner.open("/batches")
    sent = owner.form("/batches/submit")
    sent = {one: sent[one] for one in sent if one != "file"} | {"endpoint": "/v1/chat/completions", "window": "24h"}
    owner.page = owner.client.post(
        "/batches/submit", data=sent | fields, files={"file": (name, content)}, follow_redirects=True
    )
    return owner.page


def name_of(owner: Administrator) -> str:
    """The batch whose page is open."""
    return re.search(r"name=(batch_\w+)", str(owner.page.url))[1]


def becomes(owner: Administrator, batch: str, state: str) -> bool:
    return comes(lambda: f">{state}</span>" in owner.open(f"/batches/batch?name={batch}").text, 90)


def files_of(api, key: str) -> list:
    return httpx.get(f"{api[0]}/v1/files", headers={"Authorization": f"Bearer {key}"}).json()["data"]


@pytest.fixture
def key(api, admin, request):
    """A key that is no administrator's."""
    name = re.sub(r"\W+", "-", request.node.name)[-40:]
    found = made(admin, name, owner="Ana")
    assert comes(lambda: accepts(api, found))
    return found


@pytest.fixture
def owner(api, key):
    """Whoever has that key, logged in at /batches."""
    with administrator(api[0]) as found:
        found.open("/batches/login")
        assert found.send("/batches/login", {"key": key}).url.path == "/batches", found.text
        yield found


def test_without_a_login_everything_is_refused(api):
    with administrator(api[0]) as stranger:
        for path in SHOWN:
            answer = stranger.client.get(path, follow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (303, "/batches/login"), path
        for path in SENT:
            assert stranger.client.post(path, data={"name": "batch_1", "sure": "1"}).status_code == 401, path


def test_a_form_that_is_not_of_this_session_changes_nothing(api, owner, key):
    for token in ("", "x"):
        for path in SENT:
            fields = {"form": token, "name": "batch_1", "sure": "1"}
            sent = {"files": {"file": ("a", jsonl(line("a")))}} if path.endswith("submit") else {}
            assert owner.client.post(path, data=fields, **sent).status_code == 403, (path, token)
    assert files_of(api, key) == []


def test_a_batch_is_submitted_seen_and_its_files_are_downloaded(api, owner, key):
    content = jsonl(line("a"), line("b"), line(HURTFUL, max_tokens=-1), line("d", model="gpt-4o"))
    assert submit(owner, content, "行.jsonl").status_code == 200, owner.text
    assert "A batch of 行.jsonl was submitted" in owner.text
    batch = name_of(owner)
    assert becomes(owner, batch, "finished")
    assert "4 of 4 lines" in owner.text and "2 with an error" in owner.text and "行.jsonl" in owner.text
    assert "model_not_found" in owner.text and HURTFUL in owner.text and "<script" not in owner.page.text
    assert "lines a minute" in owner.text and "/batches/cancel" not in owner.page.text
    found = {
        kind: owner.client.get(f"/batches/file?name={batch}&kind={kind}") for kind in ("output", "errors", "input")
    }
    assert found["input"].content == content
    told = {kind: [json.loads(text)["custom_id"] for text in found[kind].text.splitlines()] for kind in found}
    assert told["output"] == ["a", "b"] and told["errors"] == [HURTFUL, "d"]
    for kind, answer in found.items():
        assert answer.headers["content-disposition"] == f'attachment; filename="{batch}_{kind}.jsonl"'
        assert answer.headers["cache-control"] == "no-store"
    owner.open("/batches")
    assert (
        "行.jsonl" in owner.text and "4 of 4 lines" in owner.text and f"name={batch}&amp;kind=errors" in owner.page.text
    )
    chinese = owner.open(f"/batches/batch?name={batch}", headers={"Accept-Language": "zh-CN"})
    assert "已完成" in chinese.text and "4 行中的 4 行" in chinese.text and "2 行出错" in chinese.text


def test_a_file_that_is_no_batch_is_told_by_its_lines(owner):
    submit(owner, jsonl(line("a")) + b"oops\n" + jsonl(line("a")))
    assert becomes(owner, name_of(owner), "no valid input")
    assert "Line 2" in owner.text and "invalid_json_line" in owner.text and "duplicate_custom_id" in owner.text


def test_a_batch_is_cancelled_by_its_owner_and_by_an_administrator(api, owner, admin):
    for who in (owner, admin):
        submit(owner, jsonl(*(line(str(number), max_tokens=200) for number in range(300))))
        batch = name_of(owner)
        assert who.open(f"/batches/batch?name={batch}").status_code == 200
        token = who.form("/batches/cancel")["form"]
        assert (
            who.client.post("/batches/cancel", data={"form": token, "name": batch}).status_code == 400
        ), "not confirmed"
        assert "is being cancelled" in who.send("/batches/cancel", {"sure": "1"}).text
        assert becomes(owner, batch, "cancelled")
        again = who.client.post("/batches/cancel", data={"form": token, "name": batch, "sure": "1"})
        assert again.status_code == 409 and "cannot be cancelled any more" in again.text


def test_an_administrator_sees_all_batches_and_no_files_of_others(api, owner, admin):
    submit(owner, jsonl(line("private-name", max_tokens=-1)), "private.jsonl")
    batch = name_of(owner)
    assert becomes(owner, batch, "finished")
    name = re.search(r"Batches of ([\w-]+)", owner.open("/batches").text)[1]
    admin.open(f"/batches?owner={name}&status=completed")
    assert batch in admin.text and name in admin.text and 'href="/admin/keys"' in admin.page.text
    admin.open(f"/batches/batch?name={batch}")
    assert "Only the owner can download" in admin.text and "invalid_request" not in admin.page.url.path
    assert "private" not in admin.page.text and "400" in admin.text and name in admin.text
    assert admin.client.get(f"/batches/file?name={batch}&kind=output").status_code == 404
    assert batch not in admin.open("/batches?status=failed").text
    submit(owner, jsonl(line("private"), line("private")))
    refused = name_of(owner)
    assert becomes(owner, refused, "no valid input") and "private" in owner.text
    admin.open(f"/batches/batch?name={refused}")
    assert "duplicate_custom_id" in admin.text and "private" not in admin.page.text
    submit(admin, jsonl(line("mine")), "mine.jsonl")
    mine = name_of(admin)
    assert becomes(admin, mine, "finished") and "mine.jsonl" in admin.text
    assert admin.client.get(f"/batches/file?name={mine}&kind=output").status_code == 200


def test_a_batch_of_another_key_is_not_there(owner, admin):
    submit(admin, jsonl(line("a")))
    batch = name_of(admin)
    assert becomes(admin, batch, "finished")
    assert batch not in owner.open("/batches").text
    assert owner.open(f"/batches/batch?name={batch}").status_code == 404
    assert owner.client.get(f"/batches/file?name={batch}&kind=output").status_code == 404
    form = re.search(r'name="form" value="([^"]+)"', owner.open("/batches").text)[1]
    assert owner.client.post("/batches/cancel", data={"form": form, "name": batch, "sure": "1"}).status_code == 404


def test_one_login_of_an_administrator_counts_for_both_and_an_owners_for_none_of_admin(api, owner):
    assert owner.client.cookies.get(BATCHES.cookie) and not owner.client.cookies.get(COOKIE)
    token = owner.client.cookies.get(BATCHES.cookie)
    answer = owner.client.get("/admin", headers={"Cookie": f"{COOKIE}={token}"}, follow_redirects=False)
    assert answer.status_code == 303 and owner.open("/batches").url.path == "/batches"
    with administrator(api[0]) as both:
        both.open("/batches/login")
        both.send("/batches/login", {"key": api[1]})
        assert "Batches of all" in both.text and both.open("/admin/keys").url.path == "/admin/keys"
        both.send("/admin/logout")
        assert both.open("/batches").url.path == "/batches/login"


def test_names_that_are_none(owner):
    for name in ("", "..", "../files", "batch_1/../x", "'; drop", HURTFUL, "batch_" + "1" * 100):
        answer = owner.open("/batches/batch", params={"name": name})
        assert answer.status_code == 404 and "<script" not in answer.text, name
        for kind in ("output", "key", ""):
            assert owner.client.get("/batches/file", params={"name": name, "kind": kind}).status_code == 404
    assert owner.open("/batches", params={"after": "x", "status": HURTFUL, "owner": "x"}).status_code == 200
    for fields in ({"endpoint": "/v1/embeddings"}, {"window": "31d"}):
        assert submit(owner, jsonl(line("a")), **fields).status_code == 400
        assert "The server refused this" in owner.text


def test_an_upload_that_breaks_off_leaves_nothing(api, owner, key):
    owner.open("/batches")
    form = owner.form("/batches/submit")["form"]
    head = (
        f'--b\r\nContent-Disposition: form-data; name="form"\r\n\r\n{form}\r\n--b\r\nContent-Disposition: form-data; '
    )
    for body in (head + 'name="file"; filename="a"\r\n\r\nxx', head + 'name="x"\r\n\r\ny\r\n--b--\r\n', "no form"):
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = owner.client.post("/batches/submit", content=body.encode(), headers=kind)
        assert answer.status_code == 400, answer.text
    assert owner.client.post("/batches/submit", content=b"x").status_code == 400
    assert files_of(api, key) == []


def test_the_page_is_loaded_again_only_where_the_visitor_wished_so(owner):
    assert "refresh" not in owner.open("/batches").headers and "http-equiv" not in owner.page.text
    assert owner.open("/batches?live=1").headers["refresh"] == "20" and "Stop updating" in owner.text


def test_the_api_is_away(nobody_url):
    with administrator(nobody_url) as found:
        found.open("/batches/login")
        assert found.send("/batches/login", {"key": "lb-key"}).status_code == 503 and "cannot be reached" in found.text


def test_a_visitor_with_a_login_has_batches_of_its_own(guarded, browser, api):
    assert browser.get("/batches").headers["location"] == "/batches/login"
    logged_in(browser, guarded, LOGINS[1])
    visitor = Administrator(browser)
    visitor.open("/batches")
    assert f"Batches of {LOGINS[1]}" in visitor.text
    assert submit(visitor, jsonl(line("a"))).status_code == 200, visitor.text
    batch = name_of(visitor)
    assert becomes(visitor, batch, "finished")
    assert json.loads(browser.get(f"/batches/file?name={batch}&kind=output").text)["custom_id"] == "a"
    headers = {"Authorization": f"Bearer {api[1]}"}
    owner = httpx.get(f"{api[0]}/v1/admin/batches/{batch}", headers=headers).json()["owner"]
    assert owner == f"ui/{LOGINS[1]}"
    with httpx.Client(base_url=guarded[0].url, timeout=30) as other:
        logged_in(other, guarded, LOGINS[0])
        assert batch not in other.get("/batches").text and other.get(f"/batches/batch?name={batch}").status_code == 404


def test_the_api_keeps_room_for_no_more_than_the_browser_sends(owner, key, monkeypatch):
    asked, post = [], httpx.AsyncClient.post
    monkeypatch.setattr(httpx.AsyncClient, "post", lambda *given, **more: asked.append(more) or post(*given, **more))
    content = jsonl(line("a"))
    assert submit(owner, content).status_code == 200, owner.text
    assert len(content) < int(asked[0]["headers"]["X-Lingbi-Most-Bytes"]) < len(content) + 2000
