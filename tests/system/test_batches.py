"""Batches on a running stack, by the official client: every line is answered once, whatever happens meanwhile."""

import contextlib
import io
import json
import signal
import sqlite3
import time

import pytest
from openai import OpenAI

from lingbi.images.messages import data_url
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.launch.supervision import Supervisor
from tests.client import CHAT, SCENES, fault, http, metric, question
from tests.conftest import DEMO, lingbi, running_server, running_worker
from tests.on_demand import renamed_demo, running_on_demand
from tests.server.images.image_hosts import host, silent

COLOURS = {"red": "红", "blue": "蓝", "green": "绿"}
FORM = {"type": "object", "properties": {"红": {"type": "boolean"}}, "required": ["红"], "additionalProperties": False}
SCHEMA = {"name": "answer", "strict": True, "schema": FORM}
ENDED = ("completed", "failed", "expired", "cancelled")


def picture(colour: str):
    return draw(Scene((Thing(colour, "circle"),)))


def line(custom_id: str, url: str, question: str = "它是什么颜色？", **body) -> dict:
    content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    asked = {
        "model": "internlm-xcomposer2-demo",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 20,
    }
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked | body}


def jsonl(lines: list) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode()


def submit(client: OpenAI, lines: list, window: str = "24h"):
    file = client.files.create(file=("lines.jsonl", jsonl(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window=window)


def ended(client: OpenAI, batch_id: str, timeout_s: float = 120):
    until = time.monotonic() + timeout_s
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < until, batch
        time.sleep(0.3)
    return batch


def told(client: OpenAI, file_id: str) -> list:
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def text_of(result: dict) -> str:
    return result["response"]["body"]["choices"][0]["message"]["content"]


@pytest.fixture
def client(demo_server):
    return OpenAI(api_key=demo_server["key"], base_url=f"{demo_server['url']}/v1", max_retries=0)


def test_each_line_is_answered_by_content_or_has_an_error_of_its_own(client):
    url = data_url(picture("green"))
    named = client.files.create(file=("blue.png", png(picture("blue"))), purpose="vision").id
    lines = [
        line("red", data_url(picture("red"))),
        line("named", named),
        line("green", url, stream=True, stream_options={"include_usage": True}),
        line("no picture", "data:image/png;base64,AAAA"),
        line("no file", "file-none"),
        line("another model", url, model="gpt-4o"),
        line("no length", url, max_tokens=-1),
        line("too long", url, "hello " * 5000),
        line("as JSON", url, response_format={"type": "json_schema", "json_schema": SCHEMA}),
    ]
    batch = ended(client, submit(client, lines).id)
    bad = {one["custom_id"]: one for one in told(client, batch.error_file_id)}
    assert bad.keys() == {"no picture", "no file", "another model", "no length", "too long"}, bad
    assert batch.status == "completed" and vars(batch.request_counts) == {"total": 9, "completed": 4, "failed": 5}
    good = {one["custom_id"]: one for one in told(client, batch.output_file_id)}
    assert good.keys() == {"red", "named", "green", "as JSON"}
    assert json.loads(text_of(good["as JSON"])).keys() == {"红"}
    for name, colour in (("red", "红"), ("named", "蓝"), ("green", "绿")):
        assert colour in text_of(good[name]) and good[name]["response"]["status_code"] == 200, good[name]
        assert good[name]["response"]["body"]["usage"]["completion_tokens"] > 0
    assert bad["no picture"]["response"]["status_code"] == 400
    assert bad["no file"]["error"]["code"] == "file_not_found"
    assert bad["another model"]["error"]["code"] == "model_not_found"
    assert bad["no length"]["response"]["body"]["error"]["param"] == "max_tokens"
    assert bad["too long"]["response"]["body"]["error"]["code"] == "context_length_exceeded"


def test_a_picture_that_hangs_and_an_expiry_end_their_own_lines_only(tmp_path):
    options = {"LINGBI_PICTURE_NETWORKS": "127.0.0.0/8", "LINGBI_PICTURE_FETCH_TIMEOUT_S": "2"}
    with running_worker(tmp_path / "s", **options) as server, host(silent) as hangs:
        client = OpenAI(api_key=server["key"], base_url=f"{server['url']}/v1", max_retries=0)
        batch = ended(client, submit(client, [line("hangs", hangs), line("red", data_url(picture("red")))]).id)
        (bad,), (good,) = told(client, batch.error_file_id), told(client, batch.output_file_id)
        assert (bad["custom_id"], bad["response"]["status_code"]) == ("hangs", 400), bad
        assert good["custom_id"] == "red" and "红" in text_of(good)
        url = data_url(picture("red"))
        late = submit(client, [line(str(number), url, max_tokens=60) for number in range(300)])
        until = time.monotonic() + 60
        while client.batches.retrieve(late.id).request_counts.completed < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        with contextlib.closing(sqlite3.connect(tmp_path / "s/accounts/accounts.db", timeout=30)) as database:
            database.execute("UPDATE batches SET expires_at = 0 WHERE id = ?", (late.id,))
            database.commit()
        late = ended(client, late.id)
        counts = late.request_counts
        assert late.status == "expired" and counts.completed >= 2 and counts.completed + counts.failed == 300
        assert {one["error"]["code"] for one in told(client, late.error_file_id)} == {"batch_expired"}
        assert len(told(client, late.output_file_id)) == counts.completed
        assert metric(server, "lingbi_batch_lines_total") >= counts.completed + 2
        assert metric(server, "lingbi_batches") == 2 and metric(server, "lingbi_batch_lines_left") == 0


def png(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_file_that_is_none_fails_with_its_lines(client):
    good = line("a", data_url(picture("red")))
    file = client.files.create(file=("x", jsonl([good]) + b"oops\n" + jsonl([good])), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = ended(client, made.id)
    assert batch.status == "failed" and batch.output_file_id is None
    assert [(error.code, error.line) for error in batch.errors.data] == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
    ]


def test_a_cancelled_batch_keeps_what_was_answered(client):
    url = data_url(picture("red"))
    batch = submit(client, [line(str(number), url, max_tokens=60) for number in range(400)])
    until = time.monotonic() + 60
    while client.batches.retrieve(batch.id).request_counts.completed < 3:
        assert time.monotonic() < until
        time.sleep(0.1)
    client.batches.cancel(batch.id)
    batch = ended(client, batch.id)
    counts = batch.request_counts
    assert batch.status == "cancelled" and 3 <= counts.completed < 400
    assert len(told(client, batch.output_file_id)) == counts.completed


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_every_line_is_answered_once_though_the_worker_ends_meanwhile(tmp_path, how):
    with running_server(tmp_path / "s", "--model", "demo", "--engine", "cpu") as server:
        client = OpenAI(api_key=server["key"], base_url=f"{server['url']}/v1", max_retries=8)
        names = list(COLOURS)
        urls = {name: data_url(picture(name)) for name in names}
        batch = submit(client, [line(f"{names[n % 3]}-{n}", urls[names[n % 3]]) for n in range(60)])
        until = time.monotonic() + 60
        while client.batches.retrieve(batch.id).request_counts.completed < 5:
            assert time.monotonic() < until
            time.sleep(0.05)
        (worker,) = Supervisor(tmp_path / "s").workers_left()
        worker.send_signal(how)
        batch = ended_again(client, batch.id)
        results = told(client, batch.output_file_id)
        assert batch.status == "completed" and vars(batch.request_counts) == {"total": 60, "completed": 60, "failed": 0}
        assert len(results) == 60 and {one["custom_id"] for one in results} == {
            f"{names[n % 3]}-{n}" for n in range(60)
        }
        assert all(COLOURS[one["custom_id"].split("-")[0]] in text_of(one) for one in results)


def ended_again(client: OpenAI, batch_id: str):
    """Like ended, though the server is away for a while."""
    until = time.monotonic() + 400  # a worker starts meanwhile, and a busy machine needs minutes for that
    while True:
        try:
            return ended(client, batch_id, until - time.monotonic())
        except Exception as error:
            assert time.monotonic() < until, error
            time.sleep(0.5)


def test_lines_wake_a_sleeping_model_and_give_way_to_who_asks_for_another(tmp_path):
    models = [DEMO, renamed_demo(tmp_path / "shapes")]
    with running_on_demand(tmp_path / "s", models) as demand:
        demo, shapes = demand.servers
        client = OpenAI(api_key=demo["key"], base_url=f"{demo['url']}/v1", max_retries=0)
        url = data_url(picture("red"))
        batch = submit(client, [line(str(number), url, model=shapes["model"], max_tokens=60) for number in range(40)])
        until = time.monotonic() + 400
        while client.batches.retrieve(batch.id).request_counts.completed < 2:
            assert time.monotonic() < until, [demand.state(number) for number in range(2)]
            time.sleep(0.3)
        assert demand.state(0) == "asleep"
        with http(demo, timeout=400) as asking:
            assert fault(SCENES[0], asking.post(CHAT, json=question(demo, SCENES[0]))) is None
        counts = client.batches.retrieve(batch.id).request_counts
        assert counts.total == 40 and counts.failed == 0


def test_the_commands_submit_wait_and_fetch(demo_server, tmp_path):
    file, key = tmp_path / "lines.jsonl", tmp_path / "key"
    file.write_bytes(jsonl([line("red", data_url(picture("red"))), line("bad", "data:image/png;base64,AAAA")]))
    key.write_text(demo_server["key"])
    where = ("--url", demo_server["url"], "--api-key-file", key)
    done = lingbi("batch", "submit", file, "--wait", *where, state_dir=tmp_path / "s")
    assert done.returncode == 1 and "completed" in done.stderr and "2 of 2, 1 failed" in done.stderr, done
    batch = done.stdout.strip()
    fetched = lingbi("batch", "fetch", batch, "--to", tmp_path / "out.jsonl", *where, state_dir=tmp_path / "s")
    assert fetched.stdout.split() == [str(tmp_path / "out.jsonl"), str(tmp_path / "out_errors.jsonl")], fetched
    assert "红" in text_of(json.loads((tmp_path / "out.jsonl").read_text()))
    assert batch in lingbi("batch", "status", *where, state_dir=tmp_path / "s").stdout
    again = lingbi("batch", "cancel", batch, *where, state_dir=tmp_path / "s")
    assert again.returncode == 2 and "cannot be cancelled" in again.stderr
    nobody = lingbi("batch", "status", "--url", "http://127.0.0.1:1", "--api-key-file", key, state_dir=tmp_path / "s")
    assert nobody.returncode == 2 and "no lingbi server answers" in nobody.stderr


def test_the_pipeline_goes_through_a_server_that_runs(demo_server, tmp_path):
    key = tmp_path / "key"
    key.write_text(demo_server["key"])
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in COLOURS:
        picture(name).save(folder / f"{name}.png")
    (folder / "bad.png").write_text("no picture")
    where = (
        "--url",
        demo_server["url"],
        "--api-key-file",
        key,
        "--to",
        tmp_path / "rows.jsonl",
        "--prompt",
        "它是什么颜色？",
    )
    done = lingbi("pipeline", folder, *where, state_dir=tmp_path / "s")
    rows = {
        row["source"].split("/")[-1]: row for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    }
    assert done.returncode == 1 and "3 answered, 1 failed" in done.stderr, done.stderr
    assert all(COLOURS[name] in rows[f"{name}.png"]["text"] for name in COLOURS)
    assert "cannot be decoded" in rows["bad.png"]["error"]
    form = tmp_path / "schema.json"
    form.write_text(json.dumps(FORM))
    bound = ("--schema", form, "--to", tmp_path / "bound.jsonl")
    assert lingbi("pipeline", folder, *where, *bound, state_dir=tmp_path / "s").returncode == 1
    texts = [row.get("text") for row in map(json.loads, (tmp_path / "bound.jsonl").read_text().splitlines())]
    assert sorted(json.loads(text).keys() == {"红"} for text in texts if text) == [True] * 3, texts
    again = lingbi("pipeline", folder, *where, state_dir=tmp_path / "s")
    assert "3 of 4 are answered" in again.stderr and len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4
