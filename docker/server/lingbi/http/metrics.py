"""The metrics that /metrics serves to Prometheus: one registry per worker, names beginning with `lingbi_`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family

from lingbi.demand.decision import IDLE, ROOM
from lingbi.demand.record import Record

if TYPE_CHECKING:
    from lingbi.accounts.entries import Counts
    from lingbi.engine.bound import Tally
    from lingbi.engine.generation import Generator

Metric = TypeVar("Metric", Counter, Gauge, Histogram, Info)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LINE_OUTCOMES = ANSWERED, FAILED = ("answered", "failed")
LEDGER_ERRORS = ("database", "disk", "entry", "fault")
PREFIX = "lingbi_"
BUILD_PACKAGES = ("lmdeploy", "torch", "transformers")


class Demand:
    """The wakes of a worker. Its processes come and go, so they are counted in a file (a collector of prometheus_client)."""

    def __init__(self, record: Record, state: Callable[[], str]) -> None:
        self.record, self.state = record, state

    def collect(self) -> Iterator[Family]:
        counts = self.record.read()
        yield CounterMetricFamily("lingbi_model_wakes", "How often the model was loaded on demand", counts.wakes)
        yield CounterMetricFamily("lingbi_model_swaps", "How often another model was put away for it", counts.swaps)
        away = CounterMetricFamily("lingbi_model_put_away", "How often it was put away, by why", labels=("why",))
        for why in (ROOM, IDLE):
            away.add_metric((why,), counts.put_away.get(why, 0))
        yield away
        spent = CounterMetricFamily("lingbi_model_wake_seconds", "Seconds of all wakes, by part", labels=("part",))
        for part, seconds in counts.seconds.items():
            spent.add_metric((part,), seconds)
        yield spent
        state = GaugeMetricFamily("lingbi_model_state", "1 for the state that the model is in", labels=("state",))
        for name in ("asleep", "waking", "ready", "draining"):
            state.add_metric((name,), self.state() == name)
        yield state


class ModelRegistry(CollectorRegistry):
    """A registry whose lingbi_ samples all have the label `model`, where a model is given."""

    def __init__(self, model: str | None) -> None:
        super().__init__()
        self.own_labels = {"model": model} if model else {}

    def collect(self) -> Iterator[Family]:
        for family in super().collect():
            if family.name.startswith(PREFIX):
                family.samples = [
                    sample._replace(labels={**sample.labels, **self.own_labels}) for sample in family.samples
                ]
            yield family


class Metrics:
    """All metrics of a worker. model: what it serves, as the label of each."""

    def __init__(self, model: str | None = None) -> None:
        self.served = model
        self.registry = registry = ModelRegistry(model)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def make(kind: type[Metric], name: str, text: str, labels: tuple[str, ...] = (), **options: Any) -> Metric:
            return kind(f"{PREFIX}{name}", text, labels, registry=registry, **options)

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
        self.bound_tokens = make(
            Counter,
            "bound_tokens",
            "Tokens of answers that are bound to a form: forced by it, chosen among candidates, chosen where no candidate "
            "was allowed, or made and taken back",
            ("kind",),
        )
        self.outside_mass = make(
            Counter,
            "bound_outside_probability",
            "Probability beyond the candidates, summed over the tokens chosen among those that were asked for alone",
        )
        self.ledger_errors = make(
            Counter, "ledger_errors", "Times that usage could not be counted at once, by what failed", ("kind",)
        )
        for kind in LEDGER_ERRORS:  # from the start, so that the first one is seen as a change
            self.ledger_errors.labels(kind)
        self.group_requests = make(
            Counter, "group_requests", "Requests for answers, by the group of their key", ("group",)
        )
        self.group_tokens = make(
            Counter, "group_tokens", "Tokens in and out, by the group of their key and by kind", ("group", "kind")
        )
        self.ledger_waiting = make(Gauge, "ledger_waiting_entries", "Entries of usage that are not in the database yet")
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
        self.key_decode = make(
            Counter, "key_picture_decode_seconds", "Seconds that decoding pictures took, by the key's name", ("key",)
        )
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
        self.batches = make(Gauge, "batches", "Batches of all hosts that share the database, by status", ("status",))
        self.batch_lines = make(
            Counter, "batch_lines", "Lines of batches that this worker has ended, by outcome", ("outcome",)
        )
        for outcome in LINE_OUTCOMES:
            self.batch_lines.labels(outcome)
        self.batch_lines_left = make(Gauge, "batch_lines_left", "Lines of batches in progress that have no result yet")
        self.batch_lines_running = make(Gauge, "batch_lines_running", "Lines of batches that this worker has taken")
        self.ready = make(Gauge, "ready", "1 when requests are answered")
        self.model = make(Info, "model", "The model served, and by what")
        self.build = make(Info, "build", "Versions")
        self.build.info({name: version(name) for name in BUILD_PACKAGES})

    def watch_demand(self, record: Record, state: Callable[[], str]) -> None:
        """Have the metrics tell what wakes took, and what state the model is in, where it is loaded on demand."""
        self.registry.register(Demand(record, state))

    def count_bound(self, tally: Tally) -> None:
        """Count what binding an answer to its form took."""
        for kind in ("forced", "chosen", "unlisted", "taken_back"):
            self.bound_tokens.labels(kind).inc(getattr(tally, kind))
        self.outside_mass.inc(tally.outside)

    def tell_batches(self, by_status: dict[str, int], lines_left: int) -> None:
        """Take how many batches there are of each status, and the lines of those in progress that have no result yet."""
        for status, count in by_status.items():
            self.batches.labels(status).set(count)
        self.batch_lines_left.set(lines_left)

    def count_group(self, group: str, used: Counts) -> None:
        """Count what a request used for its key's group; "" where the key is in none."""
        self.group_requests.labels(group).inc()
        self.group_tokens.labels(group, "prompt").inc(used.prompt_tokens)
        self.group_tokens.labels(group, "completion").inc(used.completion_tokens)

    def watch(self, generator: Generator) -> None:
        """Have the gauges read their numbers from the generator."""
        self.queue_depth.set_function(lambda: len(generator.places.turns))
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
