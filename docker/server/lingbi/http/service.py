"""Everything in a worker that serves requests, in one place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lingbi.engine.generation import Generator
from lingbi.engine.prompts import Prompt
from lingbi.errors import ConfigurationError
from lingbi.heartbeat import Vitals
from lingbi.http.admission import Admission
from lingbi.http.auth import KeyRing
from lingbi.http.metrics import Metrics
from lingbi.http.protocol.messages import Turn
from lingbi.http.readiness import Readiness
from lingbi.images.addresses import parse_networks
from lingbi.images.download import FetchRules
from lingbi.images.loader import ImageDoor, ImageRules, Observe
from lingbi.settings import Settings

if TYPE_CHECKING:
    from lingbi.engine.local import LocalEngine

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The limits on a request's body: its size in bytes, and the seconds it may take to arrive."""

    body_bytes: int
    body_timeout_s: float


class Service:
    """One worker's parts; `generator` is set once the model is loaded."""

    def __init__(
        self, settings: Settings, readiness: Readiness, keys: KeyRing, metrics: Metrics, vitals: Vitals
    ) -> None:
        self.settings, self.readiness, self.keys, self.metrics, self.vitals = settings, readiness, keys, metrics, vitals
        self.limits = Limits(settings.max_body_mib * MIB, settings.body_timeout_s)
        self.images = ImageDoor(image_rules(settings))
        self.admission = Admission(settings.queue_limit, settings.key_concurrency)
        self.generator: Generator | None = None
        metrics.ready.set_function(lambda: readiness.is_ready)

    def take_engine(self, engine: LocalEngine, running: int, kept_sessions: int = 0) -> Generator:
        """Serve with this engine, and return its generator; must be called on the server's event loop.

        running: answers at once; kept_sessions: sessions kept for follow-up requests (see sessions.py).
        """
        self.generator = generator = Generator(engine, running, self.vitals, kept_sessions)
        self.admission.limit = generator.size + self.settings.queue_limit
        self.metrics.watch(self.admission, generator)
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
) -> tuple[Prompt, StageTimes]:
    """The prompt of a conversation: its text is checked, then its images are fetched, decoded and encoded.

    urls: of its images, as image_urls; observe: called with the seconds that each image's decoding took; is_fresh:
    encode images anew. Raises what a request may raise.
    """
    draft = await generator.draft(turns)
    if not urls:
        return draft.filled([]), StageTimes()
    begun = time.monotonic()
    async with images.fetched(urls) as files, generator.encoding:
        fetched = time.monotonic()
        decoded = await files.decode(observe)
        seen = time.monotonic()
        features = await generator.encode(decoded, is_fresh)
    return draft.filled(features), StageTimes(fetched - begun, seen - fetched, time.monotonic() - seen)


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
