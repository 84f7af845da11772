"""The CPU engine, which replaces TurboMind under lmdeploy's AsyncEngine.

Several answers advance in rounds: a turn is one chunk of a prompt or one token of an answer, so a long prompt delays the
others by one chunk at most. Who asks takes part in a round with one answer, or by its weight, so that many answers of one key
do not slow down the only one of another. The KV cache of a session stays until the session ends.
"""

import asyncio
import copy
import logging
import queue
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast

import torch
from lmdeploy.messages import EngineOutput, GenerationConfig, ResponseType
from lmdeploy.tokenizer import Tokenizer

from lingbi.engine.cpu.agreement import check_agreement
from lingbi.engine.cpu.cache import Kept, step_back
from lingbi.engine.cpu.checkpoint import load_checkpoint
from lingbi.engine.cpu.decoder import Decoder
from lingbi.engine.cpu.sampling import DEFAULT_SEED, Sampling, next_token
from lingbi.engine.cpu.sequences import Emit, Output, Sequence, round_of
from lingbi.engine.progress import PromptProgress
from lingbi.model.folder import inspect
from lingbi.turns import NOBODY, Asker

log = logging.getLogger(__name__)


class CpuEngine:
    """Engine object as AsyncEngine expects it: `tokenizer` and `create_instance`.

    threads: 0 keeps torch's default; sequences: answers that advance in turn; prefill_tokens: size of a chunk.
    Raises StartError for a folder whose own code computes another model.
    """

    def __init__(self, model_path: str, stop_words: list[str], threads: int, sequences: int, prefill_tokens: int):
        torch.set_num_threads(threads or torch.get_num_threads())
        self.model = load_checkpoint(model_path)
        folder = inspect(model_path)
        self.decoder = Decoder(self.model, folder.is_tiled)
        with torch.inference_mode():
            check_agreement(self.model, self.decoder, str(folder.path))
        self.tokenizer = Tokenizer(model_path)
        self.stop_ids = [token for word in stop_words for token in self.tokenizer.indexes_containing_token(word)]
        self.prefill_tokens = prefill_tokens
        self.max_active = sequences
        self.waiting: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self.sessions: dict[int, Kept] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="cpu-engine", daemon=True).start()

    def create_instance(self, cuda_stream_id: int = 0) -> "CpuInstance":
        return CpuInstance(self)

    def submit(self, sequence: Sequence) -> None:
        with self._changed:
            self.waiting.append(sequence)
            self._changed.notify()

    def cancel(self, session_id: int) -> None:
        """Stop the answer of a session at its next turn."""
        with self._changed:
            for sequence in [*self.waiting, *self.active]:
                if sequence.session_id == session_id:
                    sequence.cancelled = True

    def end(self, session_id: int) -> None:
        """Cancel the answer, and drop what the session has kept."""
        self.cancel(session_id)
        self.sessions.pop(session_id, None)

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                self._admit()
                chosen = round_of(self.active)
                for sequence in chosen:
                    self._turn(sequence)
                with self._changed:
                    self.active.sort(key=chosen.__contains__)  # those that had a turn stand behind the others

    def _admit(self) -> None:
        with self._changed:
            while not self.active and not self.waiting:
                self._changed.wait()
            while self.waiting and len(self.active) < self.max_active:
                self.active.append(self.waiting.popleft())

    def _turn(self, sequence: Sequence) -> None:
        try:
            is_done = sequence.cancelled or self._advance(sequence)
        except Exception as error:  # one bad request must not end the engine's only thread
            log.exception("answer of session %s failed", sequence.session_id)
            self.active.remove(sequence)
            sequence.emit(error)
            return
        if is_done:
            self.active.remove(sequence)
            if sequence.keep:
                held = sequence.ids[: sequence.cache.tokens] if sequence.left_tokens else sequence.ids
                self.sessions[sequence.session_id] = (sequence.cache, held)
            sequence.emit(_output(sequence, ResponseType.FINISH))
        elif sequence.answer:
            sequence.emit(_output(sequence, ResponseType.SUCCESS))
        else:
            sequence.emit(PromptProgress(sequence.prompt_tokens - sequence.left_tokens, sequence.prompt_tokens))

    def _advance(self, sequence: Sequence) -> bool:
        """Compute one turn; returns True when the answer is complete."""
        if sequence.max_new_tokens < 1:
            return True
        if sequence.prompt is None:
            last = self.model.model.tok_embeddings(torch.tensor(sequence.answer[-1:]))
            logits = self.decoder(last, torch.zeros(1, dtype=torch.bool), sequence.cache)
        else:
            logits = self._prefill(sequence, sequence.prompt)
            if sequence.left_tokens:
                return False
        token, logprobs = next_token(
            logits, sequence.sampling, torch.tensor(sequence.ids), len(sequence.answer), sequence.rng
        )
        if token in sequence.sampling.stop_ids:
            if sequence.with_end_logprobs:
                sequence.logprobs.append(logprobs)
            return True
        sequence.ids.append(token)
        sequence.answer.append(token)
        sequence.logprobs.append(logprobs)
        return len(sequence.answer) >= sequence.max_new_tokens

    def _prefill(self, sequence: Sequence, prompt: torch.Tensor) -> torch.Tensor:
        """Compute one chunk of the prompt that is left; returns the logits [vocabulary] after its last token."""
        size = self.prefill_tokens
        logits = self.decoder(prompt[:size], sequence.image_mask[:size], sequence.cache)
        rest = prompt[size:]
        sequence.image_mask = sequence.image_mask[size:]
        sequence.prompt = rest if len(rest) else None
        return logits


def _output(sequence: Sequence, status: ResponseType) -> EngineOutput:
    logprobs = list(sequence.logprobs) if sequence.sampling.logprobs else None
    return EngineOutput(status, list(sequence.answer), len(sequence.answer), logprobs)


class CpuInstance:
    """One request's handle, with the methods of lmdeploy's TurboMindInstance that its callers use."""

    def __init__(self, engine: CpuEngine):
        self.engine = engine

    async def async_stream_infer(
        self, session_id: int, input_ids: list[int], with_progress: bool = False, **options: Any
    ) -> AsyncIterator[Output]:
        """Yield an EngineOutput (ids so far) for every token; see TurboMindInstance.async_stream_infer.

        with_progress: yield a PromptProgress too, for every chunk of the prompt except the last.
        """
        outputs: asyncio.Queue[Output | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._submit(session_id, input_ids, lambda item: loop.call_soon_threadsafe(outputs.put_nowait, item), **options)
        while True:
            output = _raise_or(await outputs.get())
            if with_progress or not isinstance(output, PromptProgress):
                yield output
            if is_last(output):
                return

    def stream_infer(self, session_id: int, input_ids: list[int], **options: Any) -> Iterator[EngineOutput]:
        """The same as async_stream_infer, for callers in a thread (lmdeploy's own web page)."""
        if options.pop("stop", False):
            self.engine.cancel(session_id)
            return
        outputs: queue.Queue[Output | Exception] = queue.Queue()
        self._submit(session_id, input_ids, outputs.put, **options)
        while True:
            output = _raise_or(outputs.get())
            if not isinstance(output, PromptProgress):
                yield output
            if is_last(output):
                return

    def cancel(self, session_id: int) -> None:
        self.engine.cancel(session_id)

    def end(self, session_id: int) -> None:
        self.engine.end(session_id)

    async def async_cancel(self, session_id: int) -> None:
        self.cancel(session_id)

    async def async_end(self, session_id: int) -> None:
        self.end(session_id)

    def _submit(
        self,
        session_id: int,
        input_ids: list[int],
        emit: Emit,
        input_embeddings: list[torch.Tensor] | None = None,
        input_embedding_ranges: list[list[int]] | None = None,
        gen_config: GenerationConfig | None = None,
        sequence_start: bool = True,
        sequence_end: bool = False,
        step: int = 0,
        with_end_logprobs: bool = False,
        asker: Asker = NOBODY,
        **_ignored: Any,
    ) -> None:
        engine = self.engine
        gen_config = copy.copy(gen_config or GenerationConfig())
        if gen_config.stop_words is None:
            gen_config.stop_words = engine.stop_ids
        kept = engine.sessions.pop(session_id, None)
        cache, kept_ids = (engine.decoder.new_cache(), []) if sequence_start else step_back(cast("Kept", kept), step)
        left = kept_ids[cache.tokens :]  # not computed yet
        ranges = [(begin + len(left), end + len(left)) for begin, end in input_embedding_ranges or ()]
        prompt, image_mask = embed(engine.model, left + input_ids, input_embeddings, ranges)
        seed = DEFAULT_SEED if gen_config.random_seed is None else gen_config.random_seed
        engine.submit(
            Sequence(
                session_id=session_id,
                prompt=prompt,
                image_mask=image_mask,
                ids=[*kept_ids, *input_ids],
                sampling=Sampling.from_config(gen_config, engine.tokenizer.eos_token_id),
                max_new_tokens=gen_config.max_new_tokens,
                emit=emit,
                rng=random.Random(seed),
                cache=cache,
                asker=asker,
                keep=not sequence_end,
                with_end_logprobs=with_end_logprobs,
            )
        )


def is_last(output: Output) -> bool:
    """Whether an engine's output ends its answer."""
    return not isinstance(output, PromptProgress) and output.status is ResponseType.FINISH


def _raise_or(output: Output | Exception) -> Output:
    if isinstance(output, Exception):
        raise RuntimeError(f"the engine failed on this request: {output}") from output
    return output


def embed(
    model: torch.nn.Module,
    input_ids: list[int],
    features: list[torch.Tensor] | None = None,
    ranges: Iterable[tuple[int, int]] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings [tokens, hidden] with the images' features inserted, and their mask, bool [tokens]."""
    with torch.inference_mode():
        prompt = model.model.tok_embeddings(torch.tensor(input_ids))
        image_mask = torch.zeros(len(input_ids), dtype=torch.bool)
        for feature, (begin, end) in zip(features or (), ranges, strict=False):
            prompt[begin:end] = torch.as_tensor(feature).to(prompt.dtype)
            image_mask[begin:end] = True
    return prompt, image_mask
