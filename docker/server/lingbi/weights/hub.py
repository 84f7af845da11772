"""The ModelScope client, and the few calls of it that lingbi makes.

Everything that is ours to correct about a request is here: which settings the client sees, who
gets the token, how long silence is borne, and what each failure means. The client's own download
manager is not used: its parts are merged into a second copy, it has one hour a file, and it does
not say what it has received (docs/weights.md lists what was wrong with it).
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lingbi.errors import ConfigurationError, FetchError
from lingbi.weights.lockfile import Entry, Lock, check_entries

READ_TIMEOUT_S = 30
MIN_RATE = 1024  # bytes a second and connection; a slower one is dropped and asked for again
RATE_WINDOW_S = 30
LISTING_TIMEOUT_S = 600
FOREVER_S = 30 * 24 * 3600  # patience.py ends a fetch, not the client's hour a file
LISTING_LIMIT = 3000  # the hub cuts a folder's listing here and does not say so
CHUNK_BYTES = 1 << 20
MAX_SHOWN = 3


class HubFailure(FetchError):
    """The hub or the way to it failed; asking again may help. retry_after_s: what the hub asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HubRefusal(ConfigurationError):
    """The hub understood and said no: unknown, private, or not allowed. Asking again does not help."""


class Stopped(FetchError):
    """The fetch was ended because another part of it failed."""


class Hub:
    """A ModelScope hub.

    endpoint: None for ModelScope itself; token: None for public models; patience_s: longest silence of a connection
    (the client reads it once a process).
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
        self._client = import_client(patience_s)
        # Two clients: the one for bytes holds no token, so that no cookie of it reaches a CDN's host.
        self._lister = self._make_client(endpoint, self._token)
        self._streamer = self._make_client(endpoint, "")
        self.endpoint = self._lister.endpoint

    def _make_client(self, endpoint: str | None, token: str):
        nowhere = Path(os.devnull) / "modelscope"  # no login of the user's is read, and nothing is written
        config = self._client.HubConfig(endpoint=endpoint, token=token, config_dir=nowhere, cache_dir=nowhere)
        return self._client.HubApi(config=config).legacy

    def list_model(self, model: str, revision: str) -> Lock:
        """What the hub says that the model is. Raises HubFailure, HubRefusal or ConfigurationError."""
        files = self.list_files(model, revision)
        return Lock(model, revision, entries_of(files, f"{self.endpoint}: {model} at {revision}"))

    def list_files(self, model: str, revision: str) -> list:
        """The hub's listing of a model's files, all of it. Raises HubFailure or HubRefusal."""
        with (
            self._control(LISTING_TIMEOUT_S) as control,
            self._told(model, revision),
            self._lister.read_context(control),
        ):
            try:
                files = self._lister.list_repo_files(model, "model", revision)
            except (AttributeError, TypeError) as error:  # JSON, and not what the client takes for granted
                raise HubFailure(f"{self.endpoint} gave a listing of {model} that cannot be read") from error
        cut = fullest_folder(files)
        if cut:
            raise ConfigurationError(
                f"{model}: the folder {cut!r} holds {LISTING_LIMIT} files or more, and the hub lists no more than that "
                "of one folder; fetch with a lock file made from a complete copy"
            )
        return files

    @contextlib.contextmanager
    def stream(self, model: str, revision: str, path: str, start: int, end: int) -> Iterator:
        """Ask for bytes start up to end (exclusive) of a file.

        Yields (first offset of the body, iterator of chunks); the body begins at 0 where the hub
        ignores ranges. Raises HubFailure (worth asking again) or HubRefusal.
        """
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if self._token:
            headers |= {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"}
        with (
            self._control(FOREVER_S) as control,
            self._told(model, revision, path),
            self._streamer.read_context(control),
        ):
            response = self._streamer.download_stream(model, "model", path, revision, headers=headers)
            with control.response(response):
                yield body_offset(response, start), control.chunks(response, CHUNK_BYTES)

    def _control(self, timeout_s: float):
        from modelscope_hub._download_control import _DownloadControl

        return _DownloadControl(
            total_timeout=timeout_s, cancel_event=self.stop, min_rate=MIN_RATE, speed_window=RATE_WINDOW_S
        )

    @contextlib.contextmanager
    def _told(self, model: str, revision: str, path: str | None = None):
        """Turn the client's exceptions into ours, with what was asked for in the message."""
        import requests
        from modelscope_hub import errors
        from modelscope_hub._download_control import _DownloadCancelledError

        what = f"{model} at {revision}" + (f", {path}" if path else "")
        try:
            yield
        except (errors.APIError, errors.NetworkError) as error:
            raise self._failure(error, what) from error
        except _DownloadCancelledError:
            raise Stopped(f"stopped while {what} was fetched") from None
        except requests.RequestException as error:
            raise HubFailure(f"{self.endpoint} gave no usable answer for {what}: {_short(error)}") from error

    def _failure(self, error, what: str) -> Exception:
        status = getattr(error, "status_code", None)
        host = urlsplit(getattr(error, "url", None) or self.endpoint).netloc
        is_hub = host == urlsplit(self.endpoint).netloc
        if status == 404 and is_hub:
            return HubRefusal(f"{host} has no {what} (404); check the model's id and the revision's name")
        if status in (401, 403) and is_hub:
            return HubRefusal(
                f"{host} refuses {what} ({status}): the model is private or the token is not valid for it; "
                "give a token's file in LINGBI_HUB_TOKEN_FILE (--token-file)"
            )
        answer = f"answered {status}" if status else f"did not answer: {_short(error)}"
        return HubFailure(f"{host} {answer} for {what}", getattr(error, "retry_after", None))


def _short(error: Exception) -> str:
    text = str(error).split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def import_client(patience_s: float = READ_TIMEOUT_S):
    """Import the client with its settings, which it reads once, set to what lingbi promises."""
    silence_s = min(READ_TIMEOUT_S, max(1, round(patience_s)))
    os.environ["MODELSCOPE_DOWNLOAD_TIMEOUT"] = str(silence_s)
    os.environ["MODELSCOPE_API_TIMEOUT"] = str(silence_s)
    os.environ["MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS"] = "1"  # patience.py asks again
    import modelscope_hub

    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)  # what matters is raised, and told once, by us
    return modelscope_hub


def body_offset(response, start: int) -> int:
    """Where the body of an answer to a range begins. Raises HubFailure for an answer that is no file."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {start}-"):
            raise HubFailure(f"{urlsplit(response.url).netloc} answered bytes from {start} with {given!r}")
        return start
    if response.status_code != 200 or kind.startswith("text/html"):
        raise HubFailure(
            f"{urlsplit(response.url).netloc} answered {response.status_code} {kind} in place of the file; "
            "a login page or proxy may be in between"
        )
    return 0


def fullest_folder(files: list) -> str | None:
    """A folder whose listing the hub has cut, or None."""
    counts = {}
    for item in files:
        folder = os.path.dirname(str(item.get("Path", ""))) or "/"
        counts[folder] = counts.get(folder, 0) + 1
    return next((folder for folder, count in counts.items() if count >= LISTING_LIMIT), None)


def read_token(file: Path | None) -> str | None:
    """The token in a file's first line. Raises ConfigurationError where there is none."""
    if file is None:
        return None
    try:
        token = file.read_text().strip().split("\n")[0].strip()
    except OSError as error:
        raise ConfigurationError(f"token file {file} cannot be read: {error.strerror}") from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigurationError(f"token file {file} holds no token; put the ModelScope token in its first line")
    return token


def entries_of(files: list, where: str) -> tuple:
    """Lock entries of a listing [{"Path", "Size", "Sha256", "Type"}].

    Raises ConfigurationError for an empty listing and for entries that cannot be proven or placed.
    """
    blobs = [item for item in files if item.get("Type", "blob") != "tree"]
    if not blobs:
        raise ConfigurationError(f"{where} lists no files: there is no such revision, or nothing in it; check its name")
    unproven = [str(item.get("Path")) for item in blobs if not item.get("Sha256")]
    if unproven:
        raise ConfigurationError(
            f"{where} lists {len(unproven)} files without SHA-256 ({', '.join(unproven[:MAX_SHOWN])}), so their bytes "
            "cannot be proven; use a mirror that gives hashes, or fetch with a lock file"
        )
    entries = tuple(Entry(str(item.get("Path")), item.get("Size"), str(item["Sha256"]).lower()) for item in blobs)
    check_entries(entries, where)
    return entries
