"""The door before the engine: keys, readiness, routes, sizes, errors."""

import json
import logging

import pytest

from lingbi.accounts.facts import KeyFacts
from lingbi.accounts.key_file import digest
from lingbi.api_errors import EngineFault, TooLong
from lingbi.http.app import routes_of
from lingbi.http.describing.document import describe
from lingbi.http.service import Limits
from tests.server.conftest import KEY

CHAT = "/v1/chat/completions"


def body(**options) -> dict:
    return {"model": "model", "messages": [{"role": "user", "content": "hello"}]} | options


def test_live_needs_no_key_and_ready_says_503_with_phase_and_progress(client):
    assert client.get("/live").status_code == 200
    response = client.get("/ready")
    assert (response.status_code, response.json()["phase"]) == (503, "starting")
    assert response.json()["progress"] == 0 and response.headers["retry-after"]


def test_requests_before_ready_are_503_with_retry_after(client):
    response = client.get("/v1/models", headers=KEY)
    assert response.status_code == 503 and response.headers["retry-after"]
    assert response.json()["error"]["code"] == "not_ready"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "secret",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic secret",
        "Bearer secret2",
        "Bearer é",
        "x" * 10_000,
    ]
    + ["Bearer " + "k" * 10_000, "Bearer secret secret", "Bearer\tsecret", "Bearer \udcff"],
)
def test_without_a_known_key_everything_but_health_is_401(client, header):
    headers = {} if header is None else {"Authorization": header.encode("utf-8", "surrogateescape")}
    for path in ("/v1/models", CHAT, "/openapi.json", "/nothing"):
        response = client.post(path, headers=headers)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("header", "words"), [(None, "send the header"), ("Bearer", "send the header"), ("Bearer sk-wrong", "is unknown")]
)
def test_a_key_that_is_missing_and_one_that_is_unknown_are_told_apart(client, header, words):
    error = client.get("/v1/models", headers={"Authorization": header} if header else {}).json()["error"]
    assert words in error["message"] and "sk-wrong" not in error["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/live/",
        "/openapi.json/",
        "/v1/encode",
        "/v1/chat/interactive",
        "/v1/chat/completions_qos",
        "/v1/completions_qos",
    ],
)
def test_routes_outside_the_list_are_closed(ready, path):
    response = ready.post(path, headers=KEY, json={}, follow_redirects=False)
    assert response.status_code in (404, 405) and response.json()["error"]["message"]


def test_the_document_describes_exactly_the_routes_that_are_served(client, service, store):
    service.store = store  # every worker has one
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in routes_of(service)
        for method in route.methods - {"HEAD"}  # it comes with GET
    }
    paths = describe("model")["paths"]
    assert routes == {(path, method) for path, item in paths.items() for method in item}
    for path, method in routes:
        elsewhere = client.request(method, path + "/other", headers=KEY, follow_redirects=False)
        within_a_name = (403, 405) if path.startswith("/v1/admin/") else ()  # a visitor's name has slashes
        assert elsewhere.status_code in (404, 503, *within_a_name), path


def test_a_slash_behind_a_path_of_the_api_changes_nothing(ready):
    """With stock lmdeploy it leads to a redirect, which clients follow."""
    assert ready.get("/v1/models/", headers=KEY).json() == ready.get("/v1/models", headers=KEY).json()
    assert ready.post(CHAT + "/", headers=KEY, json=body(n=2)).json()["error"]["param"] == "n"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", CHAT),
        ("//chat/completions", CHAT),
        ("/v1//chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/v1/chat/completions/chat/completions", CHAT),
        ("/api/v1/completions", "/v1/completions"),
        ("/models", "/v1/models"),
        ("/v1/responses/v1/models/", "/v1/models"),
        ("/models/model", "/v1/models/model"),
    ],
)
def test_a_base_url_that_is_a_little_wrong_is_told_the_right_one(ready, path, meant):
    response = ready.post(f"http://testserver{path}", headers=KEY, json=body())
    assert response.status_code == 404 and f"the API is at {meant}:" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/completions_qos", "/modelsfoo", "/v1", "/", "/completions/x", "/chat"])
def test_a_path_that_resembles_no_route_is_pointed_to_none(ready, path):
    response = ready.post(path, headers=KEY, json=body())
    assert response.status_code == 404 and "the API is at" not in response.json()["error"]["message"]


def test_what_is_got_can_be_asked_about_without_its_body(ready):
    for path in ("/live", "/ready", "/metrics", "/v1/models"):
        whole, head = (ready.request(method, path, headers=KEY) for method in ("GET", "HEAD"))
        assert (head.status_code, head.headers["content-type"]) == (200, whole.headers["content-type"]), path
    assert ready.head(CHAT, headers=KEY).status_code == 405


def test_a_byte_order_mark_is_no_fault_and_compression_is_a_415(ready):
    data = json.dumps(body(n=2)).encode()
    assert ready.post(CHAT, headers=KEY, content=b"\xef\xbb\xbf" + data).json()["error"]["param"] == "n"
    response = ready.post(CHAT, headers=KEY | {"Content-Encoding": "br"}, content=data)
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
    assert "br" in response.json()["error"]["message"]
    assert ready.post(CHAT, headers=KEY | {"Content-Encoding": "identity"}, content=data).status_code == 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model": NaN}',
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'{"model": "\\ud800"}',
    ]
    + [
        b'{"model": "model", "messages": [{"role": "user", "content": "x"}], "temperature": ' + number + b"}"
        for number in (b"NaN", b"1e999", b"1" * 5000)
    ],
)
def test_what_is_no_usable_json_is_a_400(ready, data):
    response = ready.post(CHAT, headers=KEY, content=data)
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_an_unknown_model_is_a_404(ready):
    response = ready.post(CHAT, headers=KEY, json=body(model="gpt-4"))
    assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"
    assert ready.get("/v1/models/gpt-4", headers=KEY).status_code == 404
    assert ready.get("/v1/models/model", headers=KEY).json()["id"] == "model"


def test_a_name_that_the_gateway_resolved_means_the_model(ready):
    meant, wrong = KEY | {"X-Lingbi-Model": "model"}, KEY | {"X-Lingbi-Model": "other"}
    assert ready.get("/v1/models/gpt-4", headers=meant).json()["id"] == "model"
    assert ready.get("/v1/models/gpt-4", headers=wrong).status_code == 404
    for named in ("gpt-4", None, ""):
        asked = body(model=named) | {"temperature": 99}
        assert ready.post(CHAT, headers=meant, json=asked).json()["error"]["param"] == "temperature"
        assert ready.post(CHAT, headers=wrong, json=body(model=named)).json()["error"]["param"] == "model"


def test_a_body_over_the_limit_is_a_413_told_or_not(ready, service):
    service.limits = Limits(body_bytes=1000, body_timeout_s=10)
    whole = ready.post(CHAT, headers=KEY, content=b"x" * 1001)
    chunked = ready.post(CHAT, headers=KEY, content=(b"x" * 100 for _ in range(11)))
    assert [whole.status_code, chunked.status_code] == [413, 413]
    assert ready.post(CHAT, headers=KEY, content=b"x" * 1000).status_code == 400


def test_a_full_house_is_a_429_with_retry_after(ready, service):
    key = service.keys.find(b"secret")
    service.admission.limit = 1
    service.admission.enter(key)
    response = ready.post(CHAT, headers=KEY, json=body())
    assert response.status_code == 429 and int(response.headers["retry-after"]) > 0
    assert ready.get("/v1/models", headers=KEY).status_code == 200
    service.admission.leave(key)
    assert ready.post(CHAT, headers=KEY, json=body(n=2)).status_code == 400
    assert service.admission.inside == 0 and not service.admission.by_key


def test_a_key_has_its_limit_and_the_others_have_theirs(ready, service):
    service.admission.limit, service.admission.key_limit = 10, 1
    service.admission.enter(service.keys.find(b"secret"))
    assert ready.post(CHAT, headers=KEY, json=body()).status_code == 429
    assert ready.post(CHAT, headers={"Authorization": "Bearer other"}, json=body(n=2)).status_code == 400


@pytest.mark.parametrize("ended", [{"is_revoked": True}, {"ends_at": 1.0}])
def test_a_key_that_has_ended_is_told_so(ready, service, ended):
    service.keys.keys[digest(b"secret")] = KeyFacts("one", **ended)
    response = ready.post(CHAT, headers=KEY, json=body())
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "this API key (one) has ended" in response.json()["error"]["message"]


def test_a_key_may_use_its_models_and_sees_no_others(ready, service):
    service.keys.keys[digest(b"secret")] = KeyFacts("one", models=frozenset({"vl-7b"}))
    refused = [ready.post(CHAT, headers=KEY, json=body()), ready.get("/v1/models/model", headers=KEY)]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in refused] == [
        (403, "model_not_found")
    ] * 2
    assert "may not use the model 'model'; it may use: vl-7b" in refused[0].json()["error"]["message"]
    listed = ready.get("/v1/models", headers=KEY)
    assert listed.json()["data"] == [] and listed.headers["x-lingbi-models"] == "vl-7b"
    service.keys.keys[digest(b"secret")] = KeyFacts("one", models=frozenset({"model"}))
    assert [model["id"] for model in ready.get("/v1/models", headers=KEY).json()["data"]] == ["model"]
    assert ready.post(CHAT, headers=KEY, json=body(n=2)).status_code == 400


def test_every_response_has_an_id_and_a_usable_one_of_the_client_is_kept(ready):
    assert ready.get("/live", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("", "a b", "x" * 65, "é", "<script>"):
        given = ready.get("/v1/nothing", headers=KEY | {"X-Request-ID": bad.encode()}).headers["x-request-id"]
        assert given.startswith("req-")


def test_a_request_has_one_line_without_key_or_content(ready, caplog):
    caplog.set_level(logging.INFO)
    ready.post(CHAT, headers=KEY | {"X-Request-ID": "find-me"}, json=body(messages=["private words"]))
    (line,) = (record for record in caplog.records if record.name == "lingbi.requests")
    assert (line.id, line.status, line.key, line.reason) == ("find-me", 400, "one", "invalid_value")
    assert "secret" not in str(vars(line)) and "private" not in str(vars(line))


def test_metrics_count_by_route_and_not_by_path(ready):
    for path in ("/a", "/b", "/v1/models"):
        ready.get(path, headers=KEY)
    text = ready.get("/metrics").text
    assert 'lingbi_requests_total{route="other",status="404"} 2.0' in text
    assert 'lingbi_requests_total{route="/v1/models",status="200"} 1.0' in text
    assert "lingbi_model_info" in text and 'lingbi_build_info{lmdeploy="0.4.1"' in text and "lingbi_ready 1.0" in text


def test_what_nobody_foresaw_is_a_500_in_the_same_form(ready, service):
    # The engine of these tests has no chat template, so that asking it fails.
    response = ready.post(CHAT, headers=KEY, json=body())
    assert response.status_code == 500 and response.json()["error"]["code"] == EngineFault.code
    assert response.headers["x-request-id"] and service.admission.inside == 0


def test_refusals_know_their_codes():
    assert TooLong("x").body()["error"] == {
        "message": "x",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
    }
