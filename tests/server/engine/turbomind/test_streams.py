"""What TurboMind's output tensors say, as they come from 0.4.1."""

from types import SimpleNamespace

import torch
from lmdeploy.messages import EngineGenerationConfig

from lingbi.engine.turbomind.streams import _Reader

EOS, STOP, PROMPT = 2, 92542, 5
ROWS = 1024  # of TurboMind's candidates, however many are asked for


def outputs(ids: list[int], candidates: list[dict[int, float]]) -> dict:
    """Tensors of an answer; behind its candidates each row holds what means nothing."""
    vals, indexes = torch.full((1, 1, 8, ROWS), 7.0), torch.full((1, 1, 8, ROWS), ids[0])
    counts = torch.zeros(1, 1, 8, dtype=torch.int32)
    for place, found in enumerate(candidates):
        counts[0, 0, place] = len(found)
        indexes[0, 0, place, : len(found)] = torch.tensor(list(found))
        vals[0, 0, place, : len(found)] = torch.tensor(list(found.values()))
    return {
        "sequence_length": torch.tensor([[PROMPT + len(ids)]]),
        "output_ids": torch.tensor([[[9] * PROMPT + ids]]),
        "logprob_vals": vals,
        "logprob_indexes": indexes,
        "logprob_nums": counts,
    }


def reader(with_end_logprobs: bool, count: int = 4) -> _Reader:
    config = EngineGenerationConfig(logprobs=count, stop_words=[STOP])
    return _Reader(SimpleNamespace(eos_id=EOS), config, PROMPT, 1, with_end_logprobs)


def test_an_end_tokens_candidates_are_given_where_they_are_asked_for():
    for end in (EOS, STOP):
        found = {end: -0.5, 40: -1.0, 41: -2.0}
        assert reader(with_end_logprobs=True).read(outputs([end], [found]), True).logprobs == [found]
        assert not reader(with_end_logprobs=False).read(outputs([end], [found]), True).logprobs


def test_candidates_keep_their_order_and_end_where_their_number_says():
    found = {40: -0.5, 41: -1.0, 42: -1.5}
    output = reader(with_end_logprobs=True).read(outputs([41], [found]), True)
    assert list(output.logprobs[0].items()) == list(found.items()) and output.token_ids == [41]


def test_a_token_outside_the_number_asked_for_is_with_them():
    found = {40: -0.5, 41: -1.0, 42: -1.5}
    output = reader(with_end_logprobs=False, count=1).read(outputs([42], [found]), True)
    assert output.logprobs == [{40: -0.5, 42: -1.5}]


def test_log_probabilities_come_once_for_each_token():
    state, rows = reader(with_end_logprobs=False), [{40: -0.5}, {41: -0.25}, {42: -0.125}]
    for made in (1, 3):
        output = state.read(outputs([40, 41, 42][:made], rows[:made]), made == 3)
        assert output.logprobs == rows[:made]
