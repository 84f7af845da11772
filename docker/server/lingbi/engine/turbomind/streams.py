"""Connects the event loop with TurboMind: input without copies, output without polling."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import torch
import wrapt
from lmdeploy.messages import EngineOutput, ResponseType

Item = tuple[bool, Any]  # whether the answer is finished, and TurboMind's outputs


def woken_streams(module: Any) -> None:
    """Wake a stream when its engine thread has output; lmdeploy polls every 2 ms for every request."""

    async def async_stream_infer(
        self: Any,
        session_id: int,
        input_ids: list[int],
        input_embeddings: list[torch.Tensor] | None = None,
        input_embedding_ranges: list[list[int]] | None = None,
        sequence_start: bool = True,
        sequence_end: bool = False,
        step: int = 0,
        stop: bool = False,
        gen_config: Any = None,
        stream_output: bool = False,
        with_progress: bool = False,  # unused: a GPU computes a prompt so fast that nobody would see the progress
        with_end_logprobs: bool = False,
        asker: Any = None,  # unused: all answers advance with each step
        **kwargs: Any,
    ) -> AsyncIterator[EngineOutput]:
        newest = Newest(asyncio.get_running_loop())
        is_watched = stream_output and not stop
        if is_watched:
            self.model_insts[0].register_callback(lambda outputs, context: newest.put((False, outputs)))
        gen_config = self._update_generation_config(gen_config, **kwargs)
        inputs, lengths = self.prepare_inputs(
            session_id=session_id,
            input_ids=input_ids,
            input_embeddings=input_embeddings,
            input_embedding_ranges=input_embedding_ranges,
            sequence_start=sequence_start,
            sequence_end=sequence_end,
            step=step,
            stop=stop,
            gen_config=gen_config,
        )
        self._async_forward_thread(module._np_dict_to_tm_dict(inputs), newest)
        reader = _Reader(self, gen_config, int(lengths[0]) + step, session_id, with_end_logprobs)
        try:
            while True:
                is_finished, outputs = await newest.get()
                output = reader.read(module._tm_dict_to_torch_dict(outputs), is_finished)
                if output:
                    yield output
                if is_finished:
                    break
            for thread in self.threads:
                thread.join()
        finally:
            if is_watched:
                self.model_insts[0].unregister_callback()

    module.TurboMindInstance.async_stream_infer = async_stream_infer


class Newest:
    """The newest output of one request: put by the engine's threads, awaited on the event loop.

    Every output holds the whole answer so far, so older ones are dropped, but the last one never is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._changed, self._lock = loop, asyncio.Event(), threading.Lock()
        self._item: Item | None = None

    def put(self, item: Item) -> None:
        """Store (is_finished, outputs); any thread may call this."""
        with self._lock:
            if self._item is None or not self._item[0]:
                self._item = item
        self._loop.call_soon_threadsafe(self._changed.set)

    async def get(self) -> Item:
        """Wait for an output that has not been returned yet."""
        while True:
            with self._lock:
                item, self._item = self._item, None
            if item:
                return item
            self._changed.clear()
            await self._changed.wait()


class _Reader:
    """Turns one request's output tensors into EngineOutputs, as lmdeploy's own loop does."""

    def __init__(self, instance: Any, gen_config: Any, start: int, session_id: int, with_end_logprobs: bool):
        """with_end_logprobs: give those of an end token too, which is no token of the answer."""
        self.instance, self.config, self.start, self.session_id = instance, gen_config, start, session_id
        self.with_end_logprobs = with_end_logprobs
        self.logprobs, self.length = list[dict[int, float]](), 0

    def read(self, outputs: dict[str, Any], is_finished: bool) -> EngineOutput | None:
        """The answer so far, or None if an output is older than the last one read."""
        length = int(outputs["sequence_length"][0, 0]) - self.start
        ids = outputs["output_ids"][0, 0, self.start : self.start + length].tolist()
        self._read_logprobs(outputs, ids, length)
        ended_by_eos = bool(ids) and ids[-1] == self.instance.eos_id and not self.config.ignore_eos
        if ended_by_eos or (ids and ids[-1] in (self.config.stop_words or ())):
            ids = ids[:-1]
        if length < self.length and not is_finished:
            return None
        self.length = length
        status = ResponseType.FINISH if is_finished else ResponseType.SUCCESS
        output = EngineOutput(status, ids, length - ended_by_eos)
        if self.logprobs:
            output.logprobs = self.logprobs if self.with_end_logprobs else self.logprobs[: len(ids)]
        return output

    def _read_logprobs(self, outputs: dict[str, Any], ids: list[int], length: int) -> None:
        if "logprob_vals" not in outputs:
            return
        values, indexes, counts = (outputs[f"logprob_{name}"][0, 0] for name in ("vals", "indexes", "nums"))
        # As lmdeploy's _get_logprobs, which reads 1024 candidates one by one and holds the event loop for milliseconds.
        for place in range(len(self.logprobs), min(length, len(ids))):
            count = int(counts[place])  # what stands behind these means nothing
            known, of_known = indexes[place, :count], values[place, :count]
            best = slice(self.config.logprobs)
            found = dict(zip(known[best].tolist(), of_known[best].tolist(), strict=True))
            if ids[place] not in found:
                found[ids[place]] = float(of_known[known == ids[place]][0])
            self.logprobs.append(found)


def uncopied_features(module: Any) -> None:
    """Pass image features to the engine without copies; lmdeploy copies 10 MB four times, on the event loop."""

    @wrapt.patch_function_wrapper(module, "TurboMindInstance.prepare_inputs")
    def prepare_inputs(
        wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        features = kwargs.get("input_embeddings")
        if not features or not isinstance(features[0], torch.Tensor):
            return wrapped(*args, **kwargs)
        ranges = kwargs.get("input_embedding_ranges")
        inputs, lengths = wrapped(*args, **kwargs | {"input_embeddings": None, "input_embedding_ranges": None})
        table = features[0] if len(features) == 1 else torch.cat(features)
        inputs["input_embeddings"] = table.contiguous().view(1, -1).view(torch.int8)
        inputs["input_embedding_ranges"] = torch.tensor(np.array(ranges)[None], dtype=torch.int32)
        return inputs, lengths


def feature_dtype(engine: Any) -> torch.dtype:
    """The dtype of TurboMind's token embeddings, which image features must have too."""
    names = {"bf16": torch.bfloat16, "fp32": torch.float32}
    return names.get(engine.config.weight_type, torch.float16)
