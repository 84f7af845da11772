"""The ModelScope client, and the few of its calls that lingbi uses.

Everything that lingbi adds to a request is here: the settings that the client sees, who gets the
token, how long a connection may stay silent, what each failure means, and the checks that a listing
must pass. The client's own download manager is not used: it merges its parts into a second copy,
allows one hour for a file, and does not report the bytes it has received (docs/weights.md lists its
faults).
"""

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from lingbi.errors import ConfigurationError, FetchError
from lingbi.weights.lockfile import Entry, Lock, check_entries

if TYPE_CHECKING:  # the client takes half a second to import, and most starts need no hub
    from modelscope_hub._download_control import _DownloadControl
    from modelscope_hub._legacy_api import LegacyClient
    from modelscope_hub.errors import APIError, NetworkError
    from requests import Response

READ_TIMEOUT_S = 90  # until an answer begins: a busy hub takes 40 s to list a model; what stalls later, MIN_RATE drops
MIN_RATE = 1024  # bytes a second; a slower connection is dropped and its part is requested again
RATE_WINDOW_S = 30
LISTING_TIMEOUT_S = 600
FOREVER_S = 30 * 24 * 3600  # Patience (transfer.py) ends a fetch, not the client's hour for a file
LISTING_LIMIT = 3000  # the hub truncates the listing of a folder here, without saying so
CHUNK_BYTES = 1 << 20
MAX_SHOWN = 3


# What else there is where no hub is in reach.
OTHER_WAYS = (
    "import an archive (scripts/weights import), serve a shared folder (--model FOLDER), "
    "or try lingbi out with coloured shapes (--model demo)"
)


class HubFailure(FetchError):
    """The hub, or the network on the way to it, failed; a retry may help. retry_after_s: what the hub asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HubRefusal(ConfigurationError):
    """The hub understood the request and refused it: unknown, private or not allowed. A retry does not help."""


class Aborted(FetchError):
    """The fetch was aborted because another part of it failed."""


class Hub:
    """A ModelScope hub.

    endpoint: None for ModelScope itself; token: None for public models; patience_s: longest silence of a connection
    (the client reads it only once in a process).
    """

    def __init__(
        self,
        endpoint: str | None,
        token: str | None,
        stop: threading.Event | None = None,
        patience_s: float = READ_TIMEOUT_S,
    ):
        self.stop = stop or threading.Event()
        self._token = token or ""
        import_client(patience_s)
        # Two clients: the one that downloads has no token, so that its cookie never reaches a CDN's host.
        self._lister = _make_client(endpoint, self._token)
        self._streamer = _make_client(endpoint, "")
        self.endpoint = self._lister.endpoint

    def list_model(self, model: str, revision: str) -> Lock:
        """The files of a model as the hub lists them. Raises HubFailure, HubRefusal or ConfigurationError."""
        files = self._list_files(model, revision)
        return Lock(model, revision, entries_of(files, f"{self.endpoint}: {model} at {revision}"))

    def _list_files(self, model: str, revision: str) -> list[dict[str, object]]:
        with (
            self._control(LISTING_TIMEOUT_S) as control,
            self._own_errors(model, revision),
            self._lister.read_context(control),
        ):
            try:
                files: list[dict[str, object]] = self._lister.list_repo_files(model, "model", revision)
            except (AttributeError, TypeError) as error:  # valid JSON, but not in the shape that the client assumes
                raise HubFailure(f"{self.endpoint} sent a listing of {model} that cannot be read") from error
        truncated = truncated_folder(files)
        if truncated:
            raise ConfigurationError(
                f"{model}: the folder {truncated!r} holds {LISTING_LIMIT} files or more, and the hub lists no more "
                "than that of one folder; fetch with a lock file made from a complete copy"
            )
        return files

    @contextlib.contextmanager
    def stream(
        self, model: str, revision: str, path: str, start: int, end: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Request the bytes of a file from start up to end (exclusive).

        Yields (offset of the body's first byte, iterator over its chunks); the body starts at 0 if the
        hub ignores ranges. Raises HubFailure (worth a retry) or HubRefusal.
        """
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if self._token:
            headers |= {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"}
        with (
            self._control(FOREVER_S) as control,
            self._own_errors(model, revision, path),
            self._streamer.read_context(control),
        ):
            response = self._streamer.download_stream(model, "model", path, revision, headers=headers)
            with control.response(response):
                offset = body_offset(response, start)
                # The client declares an iterator; it is a generator, which can be closed.
                chunks = cast("Generator[bytes, None, None]", control.chunks(response, CHUNK_BYTES))
                with contextlib.closing(chunks):
                    yield offset, chunks

    def _control(self, timeout_s: float) -> "_DownloadControl":
        from modelscope_hub._download_control import _DownloadControl

        return _DownloadControl(
            total_timeout=timeout_s, cancel_event=self.stop, min_rate=MIN_RATE, speed_window=RATE_WINDOW_S
        )

    @contextlib.contextmanager
    def _own_errors(self, model: str, revision: str, path: str | None = None) -> Iterator[None]:
        """Turn the client's exceptions into lingbi's, which say what was requested."""
        import requests
        from modelscope_hub import errors
        from modelscope_hub._download_control import _DownloadCancelledError

        what = f"{model} at {revision}" + (f", {path}" if path else "")
        try:
            yield
        except (errors.APIError, errors.NetworkError) as error:
            raise self._failure(error, what) from error
        except _DownloadCancelledError:
            raise Aborted(f"aborted while {what} was being fetched") from None
        except requests.RequestException as error:
            raise HubFailure(f"{self.endpoint} gave no usable answer for {what}: {_short(error)}") from error

    def _failure(self, error: "APIError | NetworkError", what: str) -> HubFailure | HubRefusal:
        status: int | None = getattr(error, "status_code", None)
        host = urlsplit(getattr(error, "url", None) or self.endpoint).netloc
        is_hub = host == urlsplit(self.endpoint).netloc
        if status == 404 and is_hub:
            return HubRefusal(f"{host} has no {what} (404); check the model's id and the name of the revision")
        if status in (401, 403) and is_hub:
            return HubRefusal(
                f"{host} refuses {what} ({status}): the model is private, or the token is not valid for it; "
                "give a token's file in LINGBI_HUB_TOKEN_FILE (--token-file)"
            )
        answer = f"answered {status}" if status else f"did not answer: {_short(error)}"
        return HubFailure(f"{host} {answer} for {what}", getattr(error, "retry_after", None))


def _short(error: Exception) -> str:
    """The first line of an error; of one that urllib3 wraps, what was at its root."""
    text = str(error).split("\n")[0]
    root = text.partition("(Caused by ")[2].removesuffix(")")
    return f"{type(error).__name__}: {root or text}"[:300]


def import_client(patience_s: float = READ_TIMEOUT_S) -> None:
    """Import the client, which reads its settings only once, with the settings that lingbi needs."""
    silence_s = min(READ_TIMEOUT_S, max(1, round(patience_s)))
    os.environ["MODELSCOPE_DOWNLOAD_TIMEOUT"] = str(silence_s)
    os.environ["MODELSCOPE_API_TIMEOUT"] = str(silence_s)
    os.environ["MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS"] = "1"  # retries are lingbi's (Patience in transfer.py)
    import modelscope_hub  # noqa: F401  it is imported for what it reads now

    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)  # lingbi raises what matters, and logs it once


def _make_client(endpoint: str | None, token: str) -> "LegacyClient":
    from modelscope_hub import HubApi, HubConfig

    nowhere = Path(os.devnull) / "modelscope"  # the user's own login is not read, and nothing is written
    return HubApi(config=HubConfig(endpoint=endpoint, token=token, config_dir=nowhere, cache_dir=nowhere)).legacy


def body_offset(response: "Response", start: int) -> int:
    """The offset at which the body of an answer to a range request starts.

    Raises HubFailure for an answer that is not a file.
    """
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {start}-"):
            raise HubFailure(
                f"{urlsplit(response.url).netloc} answered a request for the bytes from {start} with {given!r}"
            )
        return start
    if response.status_code != 200 or kind.startswith("text/html"):
        raise HubFailure(
            f"{urlsplit(response.url).netloc} answered {response.status_code} {kind} in place of the file; "
            "there may be a login page or a proxy in between"
        )
    return 0


def truncated_folder(files: list[dict[str, object]]) -> str | None:
    """A folder whose listing the hub has truncated, or None."""
    counts = Counter(os.path.dirname(str(item.get("Path", ""))) or "/" for item in files)
    return next((folder for folder, count in counts.items() if count >= LISTING_LIMIT), None)


def entries_of(files: list[dict[str, object]], where: str) -> tuple[Entry, ...]:
    """Lock entries of a hub's listing, [{"Path", "Size", "Sha256", "Type"}], none of which is trusted.

    Raises ConfigurationError for an empty listing and for entries that cannot be verified or placed.
    """
    blobs = [item for item in files if item.get("Type", "blob") != "tree"]
    if not blobs:
        raise ConfigurationError(
            f"{where} lists no files: there is no such revision, or it is empty; check the name of the revision"
        )
    unhashed = [str(item.get("Path")) for item in blobs if not item.get("Sha256")]
    if unhashed:
        raise ConfigurationError(
            f"{where} lists {len(unhashed)} files without SHA-256 ({', '.join(unhashed[:MAX_SHOWN])}), so their bytes "
            "cannot be verified; use a mirror that lists hashes, or fetch with a lock file"
        )
    entries = tuple(_entry(item) for item in blobs)
    check_entries(entries, where)
    return entries


def _entry(item: dict[str, object]) -> Entry:
    size = cast(int, item.get("Size"))  # check_entries refuses what is not a number
    return Entry(str(item.get("Path")), size, str(item["Sha256"]).lower())


def read_token(file: Path) -> str:
    """The token in the first line of a file. Raises ConfigurationError if there is none."""
    try:
        token = file.read_text().strip().split("\n")[0].strip()
    except OSError as error:
        raise ConfigurationError(
            f"token file {file} cannot be read: {error.strerror}; give the path of a file that this user can read"
        ) from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigurationError(f"token file {file} holds no token; put the ModelScope token in its first line")
    return token
