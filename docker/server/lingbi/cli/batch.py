"""scripts/batch: submit a file of requests, see how far it is, cancel it, and fetch what came of it."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from lingbi.client.servers import add_server_options, message_of, need_server
from lingbi.errors import CheckError, ConfigurationError, LingbiError
from lingbi.files import rewritten
from lingbi.settings import load_settings

ANSWER_S, UPLOAD_S, POLL_S = 60, 3600, 2.0
ENDED = ("completed", "failed", "expired", "cancelled")
Batch = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some lines failed or the batch did, 2 refused, 130 interrupted."""
    options = parse(arguments)
    try:
        server = need_server(options, load_settings())
        with server.client(timeout=ANSWER_S) as client:
            return int(options.run(client, options))
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; the batch goes on, see scripts/batch status", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/batch", description="Files of requests that are answered in the background (OpenAI's Batch API)."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    submitting = commands.add_parser("submit", help="upload a JSONL file and make a batch of it; prints its id")
    submitting.add_argument("file", type=Path)
    submitting.add_argument("--endpoint", default="/v1/chat/completions", help="the URL of its lines")
    submitting.add_argument("--window", default="24h", help="time after which what is left expires, as in 24h or 7d")
    submitting.add_argument("--wait", action="store_true", help="wait until it has ended, with a progress bar")
    showing = commands.add_parser("status", help="one batch, or the latest ones")
    showing.add_argument("id", nargs="?")
    showing.add_argument("--wait", action="store_true", help="wait until it has ended, with a progress bar")
    cancelling = commands.add_parser("cancel", help="let no further line begin")
    cancelling.add_argument("id")
    fetching = commands.add_parser("fetch", help="write the results that are there to a file")
    fetching.add_argument("id")
    fetching.add_argument("--to", type=Path, help="default: ID_output.jsonl, and ID_errors.jsonl beside it")
    functions = {"submit": submit, "status": status, "cancel": cancel, "fetch": fetch}
    for name, command in commands.choices.items():
        add_server_options(command)
        command.set_defaults(run=functions[name])
    return parser.parse_args(arguments)


def submit(client: httpx.Client, options: argparse.Namespace) -> int:
    """Upload, and make a batch."""
    try:
        with options.file.open("rb") as file:
            form = {"file": (options.file.name, file, "application/jsonl")}
            uploaded = _asked(client, "POST", "/v1/files", files=form, data={"purpose": "batch"}, timeout=UPLOAD_S)
    except OSError as error:
        raise ConfigurationError(f"{options.file} cannot be read: {error.strerror}") from None
    asked = {
        "input_file_id": uploaded["id"],
        "endpoint": options.endpoint,
        "completion_window": options.window,
        "metadata": {"filename": options.file.name[:500]},
    }
    batch = _asked(client, "POST", "/v1/batches", json=asked)
    print(batch["id"])
    return _shown(_waited(client, batch["id"])) if options.wait else 0


def status(client: httpx.Client, options: argparse.Namespace) -> int:
    """Show one batch, or the latest."""
    if options.id:
        return _shown(_waited(client, options.id) if options.wait else _batch(client, options.id))
    for batch in _asked(client, "GET", "/v1/batches", params={"limit": 20})["data"]:
        print(line_of(batch))
    return 0


def cancel(client: httpx.Client, options: argparse.Namespace) -> int:
    """Cancel a batch."""
    _shown(_asked(client, "POST", f"/v1/batches/{options.id}/cancel"))
    return 0


def fetch(client: httpx.Client, options: argparse.Namespace) -> int:
    """Write the output and errors of a batch that has ended."""
    batch = _batch(client, options.id)
    if batch["status"] not in ENDED:
        raise CheckError(f"{options.id} is {batch['status']}; its files are there when it has ended (status --wait)")
    output = options.to or Path(f"{options.id}_output.jsonl")
    beside = (
        output.with_name(f"{output.stem}_errors{output.suffix}") if options.to else Path(f"{options.id}_errors.jsonl")
    )
    for file, column in ((output, "output_file_id"), (beside, "error_file_id")):
        if batch[column]:
            _save(client, batch[column], file)
            print(file)
    return _shown(batch)


def line_of(batch: Batch) -> str:
    """A batch as a line: id, status, lines done of all, failed ones, and when it was made."""
    counts = batch["request_counts"]
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(batch["created_at"]))
    done = counts["completed"] + counts["failed"]
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{batch['id']}  {batch['status']:<11}  {done} of {counts['total']}{failed}  {made}"


def _shown(batch: Batch) -> int:
    print(line_of(batch), file=sys.stderr)
    for error in (batch["errors"] or {"data": []})["data"][:20]:
        print(f"  line {error['line']}: {error['message']}", file=sys.stderr)
    return 0 if batch["status"] not in ("failed", "expired") and not batch["request_counts"]["failed"] else 1


def _waited(client: httpx.Client, batch_id: str) -> Batch:
    """The batch, when it has ended."""
    with tqdm(unit="line", disable=None) as bar:
        while True:
            batch = _batch(client, batch_id)
            counts = batch["request_counts"]
            bar.total = counts["total"] or None
            bar.update(counts["completed"] + counts["failed"] - bar.n)
            if batch["status"] in ENDED:
                return batch
            time.sleep(POLL_S)


def _batch(client: httpx.Client, batch_id: str) -> Batch:
    return _asked(client, "GET", f"/v1/batches/{batch_id}")


def _save(client: httpx.Client, file_id: str, file: Path) -> None:
    """Write a file's content, piece by piece."""
    with client.stream("GET", f"/v1/files/{file_id}/content", timeout=UPLOAD_S) as response:
        if not response.is_success:
            response.read()
        _check(response)
        with rewritten(file) as stream:
            for text in response.iter_text():
                stream.write(text)


def _asked(client: httpx.Client, method: str, path: str, **options: Any) -> Batch:
    try:
        response = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise CheckError(f"{client.base_url} does not answer: {type(error).__name__}: {error}") from None
    _check(response)
    told: Batch = response.json()
    return told


def _check(response: httpx.Response) -> None:
    """Raise ConfigurationError with the server's own sentence, if it refused."""
    if not response.is_success:
        raise ConfigurationError(message_of(response))


if __name__ == "__main__":
    sys.exit(main())
