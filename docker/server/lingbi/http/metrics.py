"""The metrics that /metrics serves to Prometheus: one registry per worker, names beginning with `lingbi_`."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from lingbi.engine.generation import Generator
    from lingbi.http.admission import Admission

Metric = TypeVar("Metric", Counter, Gauge, Histogram, Info)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
BUILD_PACKAGES = ("lmdeploy", "torch", "transformers")


class Metrics:
    """All metrics of a worker."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def make(kind: type[Metric], name: str, text: str, labels: tuple[str, ...] = (), **options: Any) -> Metric:
            return kind(f"lingbi_{name}", text, labels, registry=registry, **options)

        self.requests = make(
            Counter, "requests", "Requests, by route and HTTP status (499: client left)", ("route", "status")
        )
        self.refused = make(Counter, "refused_requests", "Requests refused, by reason", ("reason",))
        self.rejected_images = make(Counter, "rejected_pictures", "Pictures refused, by reason", ("reason",))
        self.prompt_tokens = make(Counter, "prompt_tokens", "Tokens in, pictures' included")
        self.reused_tokens = make(
            Counter, "reused_prompt_tokens", "Prompt tokens that a kept session held already: not computed again"
        )
        self.completion_tokens = make(Counter, "completion_tokens", "Tokens out")
        self.abandoned = make(Counter, "abandoned_requests", "Requests whose client left before the end")
        self.restarts = make(
            Counter, "worker_restarts", "Starts of this worker after the first, by reason", ("reason",)
        )
        self.probes = make(Counter, "watchdog_probes", "Picture questions of the watchdog, by result", ("result",))
        self.queue_wait = make(Histogram, "queue_wait_seconds", "Wait for an engine instance", buckets=SECONDS)
        self.first_token = make(
            Histogram, "time_to_first_token_seconds", "From the request's arrival to its first token", buckets=SECONDS
        )
        self.token_time = make(
            Histogram, "time_per_output_token_seconds", "Between tokens after the first", buckets=TOKEN_SECONDS
        )
        self.image_decode = make(Histogram, "picture_decode_seconds", "Decoding of one picture", buckets=SECONDS)
        self.image_encode = make(
            Histogram, "picture_encode_seconds", "Wait for and work of the vision encoder, a request", buckets=SECONDS
        )
        self.queue_depth = make(Gauge, "queue_depth", "Requests that wait for an engine instance")
        self.inside = make(Gauge, "requests_inside", "Requests that run or wait, from the door to their end")
        self.sessions = make(Gauge, "sessions", "Sessions whose answers run")
        self.kv_tokens = make(Gauge, "kv_cache_tokens", "Tokens that running answers hold in the KV cache")
        self.kept_sessions = make(Gauge, "kept_sessions", "Sessions that stay in the engine after their answers")
        self.kept_tokens = make(
            Gauge, "kv_cache_kept_tokens", "Tokens that kept sessions hold in the KV cache, at most: room is taken back"
        )
        self.kv_capacity = make(
            Gauge, "kv_cache_capacity_tokens", "Tokens that all running answers at once may hold; 0: not loaded"
        )
        self.seen_images = make(Gauge, "picture_cache_hits", "Pictures whose features were remembered, since the start")
        self.new_images = make(Gauge, "picture_cache_misses", "Pictures that were encoded, since the start")
        self.image_cache_bytes = make(Gauge, "picture_cache_bytes", "Host memory of remembered features")
        self.ready = make(Gauge, "ready", "1 when requests are answered")
        self.model = make(Info, "model", "The model served, and by what")
        self.build = make(Info, "build", "Versions")
        self.build.info({name: version(name) for name in BUILD_PACKAGES})

    def watch(self, admission: Admission, generator: Generator) -> None:
        """Have the gauges read their numbers from the admission and the generator."""
        self.inside.set_function(lambda: admission.inside)
        self.queue_depth.set_function(lambda: sum(not place.done() for place in generator.waiting))
        self.sessions.set_function(lambda: len(generator.runs))
        self.kv_tokens.set_function(generator.cached_tokens)
        self.kept_sessions.set_function(lambda: len(generator.sessions))
        self.kept_tokens.set_function(generator.sessions.tokens)
        cache = generator.engine.vl_encoder.cache
        self.seen_images.set_function(lambda: cache.hits)
        self.new_images.set_function(lambda: cache.misses)
        self.image_cache_bytes.set_function(lambda: cache.held_bytes)

    def render(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)
