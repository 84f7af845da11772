"""Where the engine spends a picture prompt's time on a GPU: kernels by kind, and the stretches in which none runs.

`python -m tests.load.timeline --model FOLDER` loads the model in this process, asks about different pictures without
HTTP, one after the other or so many --at-once, and watches the last ones with torch's profiler from the prompts' start
to their first tokens. Prints how long the questions after the start took, medians of those that were watched, and what
the host did in the longest stretches of the last; --trace keeps that one's trace (for Perfetto).
"""

import argparse
import asyncio
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lingbi.engine.turbomind.heap import share_one_heap, touch_ahead
from lingbi.settings import load_settings
from tests.load.overhead import load_service

ANSWERS, TOGETHER = 64, 8
WATCHED, UNWATCHED = 5, 40  # by then each of the sessions that are kept by default has held a picture
LONGEST = 12
WINDOW = "prompts to first tokens"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
OF_HOST = ("cuda_runtime", "cuda_driver")
KINDS = {
    "copies and fills": r"^Mem",
    "matrix products": r"gemm|cutlass(?!.*flash)|nvjet|splitK|xmma",
    "attention, keys and values": r"attention|flash|KVCache|kv_cache|reduce<",
    "activation, norms, masks": r"activation|norm|mask|Residual|rms",
}


@dataclass(frozen=True)
class Question:
    """Milliseconds from a question to its prompt with the picture's features, and from there to the first token; page
    faults of this process in the latter."""

    prompt_ms: float
    first_token_ms: float
    page_faults: int


@dataclass(frozen=True)
class Span:
    """A stretch of time, in µs of the trace."""

    name: str
    start: float
    end: float


class Timeline:
    """What ran on GPU and host within one window."""

    def __init__(self, events: list):
        """events: traceEvents of a Chrome trace, as torch's profiler writes it."""
        (window,) = _spans(events, lambda event: event["name"] == WINDOW and event["cat"] == "user_annotation")
        self.start, self.end = window.start, window.end
        self.on_gpu = self._within(_spans(events, lambda event: event["cat"] in ON_GPU))
        self.calls = self._within(_spans(events, lambda event: event["cat"] in OF_HOST))

    def _within(self, spans: list) -> list:
        return [span for span in spans if span.end > self.start and span.start < self.end]

    def kinds(self) -> dict:
        """{kind: ms of its kernels}."""
        sums = defaultdict(float)
        for span in self.on_gpu:
            sums[kind_of(span.name)] += (span.end - span.start) / 1000
        return dict(sums)

    def idle(self) -> list:
        """Stretches of the window in which the GPU runs nothing, as (start, end) in µs."""
        stretches, at = [], self.start
        for span in self.on_gpu:
            if span.start > at:
                stretches.append((at, span.start))
            at = max(at, span.end)
        return stretches + ([(at, self.end)] if self.end > at else [])

    def idle_ms(self) -> float:
        return sum(end - start for start, end in self.idle()) / 1000

    def host_in(self, start: float, end: float) -> dict:
        """{CUDA call: ms of it} in a stretch, of all threads."""
        sums = defaultdict(float)
        for call in self.calls:
            overlap = min(call.end, end) - max(call.start, start)
            if overlap > 0:
                sums[call.name] += overlap / 1000
        return dict(sums)

    def before_and_after(self, start: float, end: float) -> tuple:
        """Names of what ran on the GPU before and after a stretch; "-": nothing."""
        before = max((span for span in self.on_gpu if span.end <= start), key=lambda span: span.end, default=None)
        after = next((span for span in self.on_gpu if span.start >= end), None)
        return tuple(short(span.name) if span else "-" for span in (before, after))


def _spans(events: list, is_wanted) -> list:
    wanted = (event for event in events if event.get("ph") == "X" and "cat" in event and is_wanted(event))
    spans = [Span(event["name"], event["ts"], event["ts"] + event["dur"]) for event in wanted]
    return sorted(spans, key=lambda span: span.start)


def kind_of(name: str) -> str:
    """The first kind that a kernel's name has to do with."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "others")


def short(name: str) -> str:
    """A kernel's name without its namespaces and types."""
    return re.sub(r"^void |turbomind::|<.*|\(.*", "", name)[:40]


def table(questions: list) -> str:
    """Medians of every few Questions."""
    lines = ["questions   prompt  first token  page faults"]
    for first in range(0, len(questions), TOGETHER):
        some = questions[first : first + TOGETHER]
        prompt, token, faults = (
            statistics.median(getattr(one, name) for one in some) for name in Question.__dataclass_fields__
        )
        lines.append(f"{first + 1:4d}-{first + len(some):<4d} {prompt:6.1f} ms    {token:6.1f} ms  {faults:11.0f}")
    return "\n".join(lines)


def report(timelines: list) -> str:
    """Medians of all, and the longest stretches of the last."""
    last = timelines[-1]
    rows = [("window", [(one.end - one.start) / 1000 for one in timelines])]
    rows += [(kind, [one.kinds().get(kind, 0.0) for one in timelines]) for kind in [*KINDS, "others"]]
    rows += [("nothing on the GPU", [one.idle_ms() for one in timelines])]
    lines = [f"{name:<28} {statistics.median(values):7.2f} ms" for name, values in rows]
    lines += [
        f"{'kernels and copies':<28} {len(last.on_gpu):4d}",
        "",
        "nothing on the GPU, at, after … before: CUDA calls",
    ]
    for start, end in sorted(last.idle(), key=lambda stretch: stretch[0] - stretch[1])[:LONGEST]:
        calls = sorted(last.host_in(start, end).items(), key=lambda item: -item[1])[:4]
        before, after = last.before_and_after(start, end)
        said = ", ".join(f"{name} {ms:.2f}" for name, ms in calls) or "none"
        lines.append(
            f"{(end - start) / 1000:6.2f} ms at {(start - last.start) / 1000:6.2f}  {before} … {after}: {said}"
        )
    return "\n".join(lines)


class Asker:
    """Asks a service of this process about pictures, one after the other."""

    def __init__(self, service):
        from lingbi.bench.questions import Questions

        self.service = service
        self.questions = Questions("image", service.readiness.model, 1, seed=0, fixed_length=True)

    async def prompt(self):
        """The prompt of the next picture, encoded."""
        from lingbi.http.protocol.requests import ChatRequest
        from lingbi.http.service import chat_prompt
        from lingbi.images.loader import image_urls

        (turn,) = self.questions.next_talk()
        body = ChatRequest(**self.questions.body([{"role": "user", "content": turn}]))
        prompt, _ = await chat_prompt(self.service.generator, self.service.images, body.turns, image_urls(body.turns))
        return prompt

    async def first_token(self, prompt):
        """The answer to a prompt, once its first token is here; the engine goes on for one step more (Answer.task)."""
        from lmdeploy.messages import EngineGenerationConfig

        answer = await self.service.generator.start(prompt, EngineGenerationConfig(max_new_tokens=1, ignore_eos=True))
        async for _ in answer:
            pass
        return answer

    async def question(self) -> Question:
        asked = time.perf_counter()
        prompt = await self.prompt()
        begun, faults = time.perf_counter(), _page_faults()
        answer = await self.first_token(prompt)
        ended, faults = time.perf_counter(), _page_faults() - faults
        await answer.task
        return Question(1000 * (begun - asked), 1000 * (ended - begun), faults)


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


async def watch(asker: Asker, trace: Path, at_once: int = 1) -> list:
    """Timelines of the last questions, so many at once in each; trace: file of the last one."""
    from torch.profiler import ProfilerActivity, profile, record_function

    timelines = []
    for _ in range(WATCHED):
        prompts = [await asker.prompt() for _ in range(at_once)]
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            with record_function(WINDOW):
                answers = await asyncio.gather(*(asker.first_token(prompt) for prompt in prompts))
            await asyncio.gather(*(answer.task for answer in answers))
        profiler.export_chrome_trace(os.fspath(trace))
        timelines.append(Timeline(json.loads(trace.read_text())["traceEvents"]))
    return timelines


async def measure(service, kept_sessions: int, trace: Path, options) -> None:
    """Ask as after a worker's start, then watch; prints both."""
    generator, asker = service.generator, Asker(service)
    await generator.prime()
    if not options.fresh_pages:
        touch_ahead(kept_sessions, generator.engine.vl_encoder.model.feature_bytes)
    print(table([await asker.question() for _ in range(UNWATCHED)]), end="\n\n")
    print(report(await watch(asker, trace, options.at_once)), flush=True)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.timeline", description=__doc__.split(":")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--at-once", type=int, default=1, help="questions whose prompts start together")
    parser.add_argument("--trace", type=Path, help="file for the trace of the last")
    parser.add_argument(
        "--fresh-pages", action="store_true", help="leave the heap as it is (see lingbi/engine/turbomind/heap.py)"
    )
    options = parser.parse_args(arguments)
    if not options.fresh_pages:
        share_one_heap()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LINGBI_STATE_DIR", folder)
        trace = options.trace or Path(folder) / "trace.json"
        kept_sessions = load_settings().kept_sessions
        service = load_service(options.model, ANSWERS, kept_sessions)
        asyncio.run(measure(service, kept_sessions, trace, options))
    os._exit(0)  # the engine's threads never return


if __name__ == "__main__":
    sys.exit(main())
