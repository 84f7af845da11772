"""Everything in a worker that serves requests, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lingbi.accounts.database import Database
from lingbi.accounts.ledger.journal import ONE_REQUEST
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.quotas.use import counted
from lingbi.accounts.ring import KeyRing
from lingbi.accounts.visitors import Visitors
from lingbi.batch.store import Store
from lingbi.engine.background import Background
from lingbi.engine.generation import Generator
from lingbi.engine.prompts import Prompt
from lingbi.errors import ConfigurationError
from lingbi.heartbeat import Vitals
from lingbi.http.admission.bodies import BodyRoom
from lingbi.http.admission.quotas import Quotas
from lingbi.http.admission.requests import Admission
from lingbi.http.metrics import Metrics
from lingbi.http.protocol.messages import Turn
from lingbi.http.readiness import Readiness
from lingbi.http.request_log import Record
from lingbi.http.waking import Waking
from lingbi.images.addresses import parse_networks
from lingbi.images.download import FetchRules
from lingbi.images.loader import ImageDoor, ImageRules, Observe
from lingbi.settings import Settings

if TYPE_CHECKING:
    from lingbi.engine.local import LocalEngine

MIB = 1 << 20
FILES = "/v1/files"
FORM_BYTES = MIB  # what stands around a file in a form


@dataclass(frozen=True)
class Limits:
    """The limits on a request's body: its size in bytes, and the seconds that it, or each piece of it, may take to arrive."""

    body_bytes: int
    body_timeout_s: float
    is_for_each_piece: bool = False


class Service:
    """One worker's parts; `generator` is set once the model is loaded, `spool` and `quotas` where usage is counted."""

    def __init__(
        self, settings: Settings, readiness: Readiness, keys: KeyRing, metrics: Metrics, vitals: Vitals
    ) -> None:
        self.settings, self.readiness, self.keys, self.metrics, self.vitals = settings, readiness, keys, metrics, vitals
        self.limits = Limits(settings.max_body_mib * MIB, settings.body_timeout_s)
        largest = settings.max_file_mib * MIB + FORM_BYTES
        self.upload_limits = Limits(largest, settings.body_timeout_s, is_for_each_piece=True)
        # Within its share, half of all while it is alone, a key may send the largest body.
        self.body_room = BodyRoom(max(settings.bodies_mib * MIB, 2 * self.limits.body_bytes))
        self.images = ImageDoor(image_rules(settings))
        self.admission = Admission(settings.queue_limit, settings.key_concurrency)
        self.reading = ThreadPoolExecutor(1, "read")  # bodies; several threads would only take the interpreter in turn
        self.generator: Generator | None = None
        self.spool: Spool | None = None  # what requests use goes there
        self.database: Database | None = None  # of the accounts
        self.quotas: Quotas | None = None
        self.visitors = Visitors(keys, keys.source.database if keys.source else None)
        self.waking: Waking | None = None  # where models are loaded on demand
        self.store: Store | None = None  # of files and batches; a worker has one
        self.takes_lines = True  # of batches, until the worker drains
        self.look_at_batches: Callable[[], None] = lambda: None  # at once, not only when their runner next would
        self.has_lines = False  # of batches for this model, where it is loaded on demand; as its runner last saw
        self.running_lines: Callable[[], int] = lambda: 0  # of batches, in this worker
        self.background = Background()  # what may begin beside those who wait
        metrics.ready.set_function(lambda: readiness.is_ready)
        # Before the model is loaded too, since requests wait for it.
        metrics.inside.set_function(lambda: self.admission.inside)

    @property
    def must_wait(self) -> bool:
        """Whether the model is still to be loaded for a request that was let in."""
        return self.waking is not None and self.waking.must_wait

    def end_quota(self, record: Record) -> None:
        """Note what a request has used, now that it has ended."""
        if self.quotas and record.use:
            self.quotas.end(record.use.name, counted(record.use.entry(record.status, record.used().plus(ONE_REQUEST))))

    def limits_of(self, route: str) -> Limits:
        """The limits on the body of a request to this route."""
        return self.upload_limits if route == FILES else self.limits

    def take_engine(self, engine: LocalEngine, running: int, kept_sessions: int = 0) -> Generator:
        """Serve with this engine, and return its generator; must be called on the server's event loop.

        running: answers at once; kept_sessions: sessions kept for follow-up requests (see sessions.py).
        """
        self.generator = generator = Generator(engine, running, self.vitals, kept_sessions, self.background)
        self.admission.limit = generator.size + self.settings.queue_limit
        self.admission.refuse_newest = generator.places.refuse_newest
        self.metrics.watch(generator)
        return generator


@dataclass(frozen=True)
class StageTimes:
    """Seconds that the stages of a prompt's images took; None where there is no image."""

    fetch_s: float | None = None
    decode_s: float | None = None
    encode_s: float | None = None


async def chat_prompt(
    generator: Generator,
    images: ImageDoor,
    turns: Sequence[Turn],
    urls: list[str],
    observe: Observe = lambda seconds: None,
    is_fresh: bool = False,
    key: str = "",
) -> tuple[Prompt, StageTimes]:
    """The prompt of a conversation: its text is checked, then its images are fetched, decoded and encoded.

    urls: of its images, as image_urls; observe: called with the seconds that each image's decoding took; is_fresh:
    encode images anew; key: the name of the asker, with which others take turns. Raises what a request may
    raise.
    """
    draft = await generator.draft(turns)
    if not urls:
        return draft.filled([]), StageTimes()
    async with images.decoded(urls, key, observe) as found:
        seen = time.monotonic()
        features = await generator.encode(found.images, is_fresh)
    return draft.filled(features), StageTimes(found.fetch_s, found.decode_s, time.monotonic() - seen)


def image_rules(settings: Settings) -> ImageRules:
    """The rules for images that follow from the settings. Raises ConfigurationError."""
    try:
        networks = parse_networks(settings.picture_networks)
    except ValueError as error:
        raise ConfigurationError(
            f"LINGBI_PICTURE_NETWORKS={settings.picture_networks!r}: {error}; give CIDR blocks, as in 10.1.0.0/16"
        ) from None
    hosts = tuple(host.strip().lower() for host in settings.picture_hosts.split(",") if host.strip())
    max_bytes = settings.max_picture_mib * MIB
    fetch = FetchRules(settings.picture_urls, hosts, networks, settings.picture_fetch_timeout_s, max_bytes)
    return ImageRules(settings.max_pictures, max_bytes, settings.max_picture_mpixels * 1_000_000, fetch)
