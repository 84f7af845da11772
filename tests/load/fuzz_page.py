"""Hypothesis against the page's routes: `python -m tests.load.fuzz_page --inputs N`.

A real page server before an API of this process gets odd questions, button presses, cancellations, uploads, logins,
paths, queries and headers. None may get a 5xx, and the page's log may tell of no event loop that worked for over 100 ms
at a stretch (guard/stalls.py: processor time, so that a busy machine does not count).
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from hypothesis import given
from hypothesis import strategies as st

from tests.load.fuzz import Odd, bounded, hang_ends_the_run, mutate, spoilt
from tests.ui.conftest import ASKED, OPTIONS, FakeApi, running_page, said

JOIN, PREDICT, CANCEL, UPLOAD = (
    "/gradio_api/queue/join",
    "/gradio_api/run/predict",
    "/gradio_api/cancel",
    "/gradio_api/upload",
)
READ = ("/", "/config", "/state", "/live", "/health", "/logout", "/theme.css", "/gradio_api/app_id")
BEGINNINGS = (
    "/gradio_api/file=",
    "/static/",
    "/assets/",
    "/svelte/",
    "/gradio_api/",
    "/gradio_api/upload_progress?upload_id=",
)
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS")
HEADERS = (
    "Accept-Language",
    "Cookie",
    "Content-Type",
    "Sec-Fetch-Site",
    "Origin",
    "X-Forwarded-Proto",
    "Range",
    "Accept",
)
BATCH, AT_ONCE = 25, 8
FIELDS = (
    "data",
    "fn_index",
    "session_hash",
    "event_data",
    "trigger_id",
    "event_id",
    "batched",
    "simple_format",
    "unknown",
)
CONTENT = {"Content-Type": "application/json"}


class OddPage(Odd):
    """Odd requests to the page, of one seed: the same ones each time."""

    def __init__(self, seed: int, events: int):
        super().__init__(seed)
        self.events = events

    def turns(self):
        """A history: mostly one that could be meant."""
        rng = self.rng
        turns = rng.choice((ASKED, said(self.text()), [self.message() for _ in range(rng.randrange(4))]))
        return self.value() if rng.random() < 0.1 else turns

    def question(self) -> dict:
        rng = self.rng
        box = {"text": self.text(), "files": [{"path": self.text(), "meta": {"_type": "gradio.FileData"}}]}
        data = rng.choice(([self.turns(), *OPTIONS], [box, self.turns(), *OPTIONS], [self.value() for _ in range(3)]))
        details = rng.choice((None, {"index": self.value(), "value": self.value(), "previous_value": self.text()}))
        session = f"s{rng.randrange(1 << 40)}"
        body = {
            "data": data,
            "fn_index": rng.randrange(self.events + 1),
            "session_hash": session,
            "event_data": details,
        }
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            body[rng.choice(FIELDS)] = self.value()
        return body

    def json(self, body) -> bytes:
        data = json.dumps(body).encode()
        return mutate(data, self.rng) if self.rng.random() < 0.1 else data

    def upload(self) -> tuple:
        rng = self.rng
        name = self.text().encode("utf-8", "replace")
        parts = [b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\n']
        content = b"".join(parts) + spoilt(rng.getrandbits(64)) + b"\r\n--b--\r\n"
        content = mutate(content, rng) if rng.random() < 0.5 else content
        return "POST", UPLOAD, content, {"Content-Type": "multipart/form-data; boundary=b"}

    def headers(self) -> dict:
        """A few, with values that a header can hold."""
        rng = self.rng
        values = (self.text(), "zh-CN", "cross-site", "null", "bytes=0-", "https", "access-token-x=y")
        names = rng.sample(HEADERS, rng.choice((0, 0, 1, 2)))
        return {name: "".join(c for c in rng.choice(values) if 31 < ord(c) < 127).strip() for name in names}

    def elsewhere(self) -> tuple:
        rng = self.rng
        path = rng.choice((rng.choice(READ), rng.choice(BEGINNINGS) + self.text(), "/" + self.text()))
        return rng.choice(METHODS), path, self.text().encode("utf-8", "replace"), {}

    def page_request(self) -> tuple:
        """(method, path, body, headers)."""
        rng = self.rng
        visitor = {"X-Forwarded-For": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"}
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        name = self.text().encode("utf-8", "replace")
        kinds = (
            ("POST", JOIN, self.json(self.question()), CONTENT),
            ("POST", rng.choice((JOIN, PREDICT, CANCEL)), self.json(self.question()), CONTENT),
            ("POST", "/login", b"username=" + name + b"&password=" + name, form),
            self.upload(),
            self.elsewhere(),
        )
        method, path, content, headers = rng.choice(kinds)
        return method, path, content, headers | self.headers() | visitor


def fuzz_page(count: int, folder: Path) -> dict:
    """Outcomes, MiB that the page grew by, and its stalls; raises on the first 5xx."""
    api, outcomes = FakeApi(), Counter()
    try:
        with running_page(folder, api.url, LOG_LEVEL="DEBUG", ALL_QUESTIONS=2000) as page:
            events = len(page.client.get("/config").json()["dependencies"])
            page.log.write_text("")  # what the start took is another matter
            start = page.process.memory_info().rss
            _try(page, events, count, outcomes)
            grown = (page.process.memory_info().rss - start) >> 20
            return {"outcomes": dict(outcomes), "grown_mib": grown, "blocked_ms": stalls(page.log.read_text())}
    finally:
        api.stop()


def stalls(log: str) -> list:
    """Milliseconds for which the page's loop worked without a break, where it says so."""
    return [int(line.split()[-2]) for line in log.splitlines() if "the loop was blocked for" in line]


def _try(page, events: int, count: int, outcomes: Counter) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:

        @bounded(max(1, count // BATCH))
        @given(st.integers(0, (1 << 64) - 1))
        def some(seed):
            with hang_ends_the_run():
                for outcome in pool.map(lambda number: _ask(page, (seed + number) % (1 << 64), events), range(BATCH)):
                    outcomes[outcome] += 1

        some()


def _ask(page, seed: int, events: int) -> str:
    """The status of one seed's request."""
    method, path, content, headers = OddPage(seed, events).page_request()
    try:
        answer = page.client.request(method, page.url + path, content=content, headers=headers)
    except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):
        return "not sent"  # the client's own refusal
    assert answer.status_code < 500, (seed, method, path, answer.status_code, answer.text[:300])
    return str(answer.status_code)


def main(arguments=None) -> int:
    """Exit status 0 when nothing was found; an input that gets a 5xx ends the run with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz_page(options.inputs, Path(folder))
    print(json.dumps({"inputs": options.inputs, "seconds": round(time.monotonic() - began, 1)} | report))
    return int(bool(report["blocked_ms"]))


if __name__ == "__main__":
    sys.exit(main())
