"""What a card has room for is counted before a model is loaded, and a refusal names what would do.

The figures follow from constants that are measured (tests/gpu/test_fit.py, docs/performance/memory.json); here stands
what must hold for any, and that they agree with what was measured.
"""

import itertools
import json
import logging
import re
from bisect import bisect_left
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue, sizing
from lingbi.model.folder import inspect
from lingbi.model.gpus import Gpu
from lingbi.model.share import share_of
from lingbi.model.sizing import (
    ANYTHING,
    BATCHES,
    BITS,
    BLOCK_TOKENS,
    OTHERS_MIB,
    STEPS,
    Wanted,
    fit_when_free,
    least_mib,
)
from lingbi.settings import Settings
from tests.conftest import DEMO, ROOT

CARDS_GB = (8, 16, 20, 24, 40, 80, 141)
VL_7B, TILED = catalogue.find("vl-7b"), catalogue.find("4khd-7b")
MEASURED = json.loads((ROOT / "docs/performance/memory.json").read_text())["rows"]
EVERY = (*catalogue.MODELS, inspect(DEMO))
SAID = ("session_len", "max_batch_size", "prefill_tokens", "quant_policy")
WIDE_MIB = 4096  # more than all steps down together give
NUMBERS = re.compile(r"needs (\d+) MiB, and (\d+) MiB are free on")
BOUNDED = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

models = st.sampled_from(EVERY)
memory_mib = st.integers(0, 200_000)
own_choices = st.builds(
    Wanted,
    session_len=st.none() | st.integers(256, 1 << 16),
    max_batch_size=st.none() | st.integers(1, 512),
    prefill_tokens=st.none() | st.integers(256, 1 << 14),
    quant_policy=st.none() | st.sampled_from(sorted(BITS)),
    cache_fraction=st.none() | st.floats(0.01, 0.99),
    hd_num=st.integers(1, 55),
)


def fitted(model, mib: int, wanted: Wanted = ANYTHING):
    """The Fit, or None where it is refused."""
    try:
        return sizing.fit(model, mib, wanted)
    except ConfigurationError:
        return None


def refused(model, mib: int, wanted: Wanted = ANYTHING) -> str:
    with pytest.raises(ConfigurationError) as caught:
        sizing.fit(model, mib, wanted, "GPU 0 (L4)")
    return str(caught.value)


def rank(found) -> tuple:
    """What gives way last stands first; more is better."""
    return found.session_len, found.max_batch_size, BITS[found.quant_policy], found.prefill_tokens


@pytest.mark.parametrize("gb", CARDS_GB)
@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_every_model_on_every_slice(model, gb):
    room_mib = gb << 10
    if gb < model.card_gb and fitted(model, room_mib) is None:
        needed, free = map(int, NUMBERS.search(refused(model, room_mib)).groups())
        assert needed > free == room_mib
        return
    found = sizing.fit(model, room_mib)
    assert found.total_mib <= room_mib and found.cache_tokens >= found.session_len
    if gb >= model.card_gb:
        assert found.session_len == model.session_len
    if gb >= 40:
        assert found.max_batch_size in (BATCHES[0], sizing.WIDE_BATCH)
        assert rank(found)[2:] == (BITS[STEPS[0][0]], STEPS[0][1])


@pytest.mark.parametrize(
    ("model", "gb", "answers"), [(VL_7B, 40, 64), (VL_7B, 80, 128), (TILED, 80, 64), (TILED, 141, 128)]
)
def test_more_answers_run_where_the_cache_has_room_for_all(model, gb, answers):
    assert sizing.fit(model, gb << 10).max_batch_size == answers
    assert sizing.fit(model, gb << 10, Wanted(max_batch_size=48)).max_batch_size == 48


def test_the_least_card_for_more_answers_holds_an_image_chat_of_each():
    cards = range(40 << 10, 80 << 10)
    least = bisect_left(cards, sizing.WIDE_BATCH, key=lambda mib: sizing.fit(VL_7B, mib).max_batch_size)
    less, found = (sizing.fit(VL_7B, cards[place]) for place in (least - 1, least))
    assert (less.max_batch_size, found.max_batch_size) == (BATCHES[0], sizing.WIDE_BATCH)
    chats = sizing.WIDE_BATCH * sizing.image_session(VL_7B, catalogue.HD_NUM)
    assert 0 <= found.cache_tokens - chats < 2 * BLOCK_TOKENS


def test_a_card_gives_way_in_the_steps_then_the_bits_then_the_answers_and_the_session_last():
    least = least_mib(TILED)
    down = [rank(sizing.fit(TILED, mib)) for mib in range(least + WIDE_MIB, least - 1, -1)]
    assert down == sorted(down, reverse=True)
    sessions, answers, bits, steps = (sorted(set(values), reverse=True) for values in zip(*down, strict=True))
    assert sessions[0] == TILED.session_len > sessions[-1] >= sizing.least_session(TILED)
    assert (answers, bits) == (sorted(BATCHES, reverse=True), sorted(BITS.values(), reverse=True))
    assert steps == sorted({prefill for _, prefill in STEPS}, reverse=True)
    smallest = (answers[-1], bits[-1], steps[-1])
    assert {place[1:] for place in down if place[0] < TILED.session_len} == {smallest}


def test_the_shortest_session_holds_the_largest_image():
    for model, hd_num in itertools.product(catalogue.MODELS, (1, catalogue.HD_NUM, 55)):
        largest = int(model.image_range(hd_num).split("-")[-1])
        assert (
            sizing.least_session(model, Wanted(hd_num=hd_num))
            == largest + catalogue.TEMPLATE_TOKENS + sizing.LEAST_ANSWER_TOKENS
        )


def test_fewer_bits_hold_more_tokens_and_more_answers_take_more():
    sizes = [sizing.block_bytes(VL_7B, quant) for quant in BITS]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == BLOCK_TOKENS * VL_7B.geometry.kv_bytes
    heads = 2 * VL_7B.geometry.layers * VL_7B.geometry.kv_heads
    assert sizes[1] == sizes[0] // 2 + BLOCK_TOKENS * heads * sizing.QUANTISED_EXTRA
    least = sizing.runtime_mib(VL_7B, 4, 1024, 4096, 25)
    assert sizing.runtime_mib(VL_7B, 64, 1024, 4096, 25) > least
    assert sizing.runtime_mib(VL_7B, 4, 4096, 4096, 25) > least


@BOUNDED
@given(models, memory_mib, own_choices, st.none() | memory_mib)
def test_it_keeps_to_its_room_and_to_what_was_said(model, free_mib, wanted, limit_mib):
    found = fitted(model, free_mib, replace(wanted, gpu_memory_mib=limit_mib or None))
    assume(found)
    room_mib = min(free_mib, limit_mib or free_mib)
    assert found.total_mib == found.weights_mib + found.runtime_mib + found.cache_mib <= room_mib
    assert found.cache_tokens == found.blocks * BLOCK_TOKENS >= found.session_len
    assert {name: getattr(wanted, name) or getattr(found, name) for name in SAID} == {
        name: getattr(found, name) for name in SAID
    }
    left_mib = room_mib - found.weights_mib - found.runtime_mib
    assert found.cache_mib <= left_mib * (wanted.cache_fraction or sizing.DEFAULT_SHARE) + 1
    assert wanted.session_len or sizing.least_session(model, wanted) <= found.session_len <= model.session_len


@BOUNDED
@given(models, own_choices)
def test_what_is_needed_is_exactly_the_least_that_is_accepted(model, wanted):
    needed = least_mib(model, wanted)
    assert sizing.fit(model, needed, wanted).total_mib <= needed
    said = refused(model, needed - 1, wanted)
    assert NUMBERS.search(said).groups() == (str(needed), str(needed - 1)), said
    assert sizing.fit(model, 2 * needed, replace(wanted, gpu_memory_mib=needed)) == sizing.fit(model, needed, wanted)
    said = refused(model, 2 * needed, replace(wanted, gpu_memory_mib=needed - 1))
    assert NUMBERS.search(said).groups() == (str(needed), str(2 * needed)), said
    assert f"LINGBI_GPU_MEMORY_MIB allows {needed - 1}" in said


@BOUNDED
@given(models, memory_mib, st.integers(0, 20_000), own_choices)
def test_more_memory_is_never_worse(model, free_mib, more_mib, wanted):
    found = fitted(model, free_mib, wanted)
    assume(found)
    assert rank(sizing.fit(model, free_mib + more_mib, wanted)) >= rank(found)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_room_for_cache_is_what_its_share_is_of(share):
    free_mib = 4 * least_mib(VL_7B)
    found = sizing.fit(VL_7B, free_mib, Wanted(cache_fraction=share))
    assert found.cache_mib == pytest.approx(share * sizing.cache_room_mib(VL_7B, free_mib, catalogue.HD_NUM), rel=0.01)


def test_a_limit_above_what_is_free_changes_nothing():
    free_mib = least_mib(VL_7B)
    assert sizing.fit(VL_7B, free_mib, Wanted(gpu_memory_mib=free_mib + 1)) == sizing.fit(VL_7B, free_mib)
    assert "LINGBI_GPU_MEMORY_MIB" not in refused(VL_7B, free_mib - 1, Wanted(gpu_memory_mib=free_mib))


@pytest.mark.parametrize(
    ("free_mib", "wanted", "remedy"),
    [
        (-1, Wanted(), "end what else uses the GPU (`nvidia-smi`), or use a smaller model"),
        (-1, Wanted(gpu_memory_mib=1), "end what else uses the GPU (`nvidia-smi`), or use a smaller model"),
        (0, Wanted(gpu_memory_mib=1), "allow more, or use a smaller model"),
        (
            0,
            Wanted(session_len=1 << 16, quant_policy="0"),
            "leave LINGBI_SESSION_LEN, LINGBI_QUANT_POLICY to be chosen",
        ),
        (-1, Wanted(session_len=1 << 16), "end what else uses the GPU (`nvidia-smi`), or use a smaller model"),
    ],
)
def test_a_refusal_tells_the_remedy_that_would_do(free_mib, wanted, remedy):
    said = refused(VL_7B, least_mib(VL_7B) + free_mib, wanted)
    assert f"{VL_7B.served_name} needs" in said and "are free on GPU 0 (L4)" in said and remedy in said


def test_what_a_fit_says_of_itself_has_its_numbers():
    found = sizing.fit(TILED, TILED.card_gb << 10)
    said = str(found)
    values = asdict(found) | {"total": found.total_mib, "tokens": found.cache_tokens, "bits": BITS[found.quant_policy]}
    unsaid = {name for name, value in values.items() if not re.search(rf"\b{value}\b", said)}
    assert unsaid <= {"blocks", "quant_policy", "cards", "tower_mib"}  # of a copy on one card


def test_the_operators_part_is_read_from_the_settings():
    own = {"session_len": 2048, "max_batch_size": 3, "prefill_tokens": 512, "quant_policy": "8"}
    own |= {"cache_fraction": 0.5, "gpu_memory_mib": 20_000, "hd_num": 40}
    assert asdict(Wanted.of(Settings(**own))) == own
    assert Wanted.of(Settings()) == ANYTHING
    assert {field.name for field in fields(Wanted)} == own.keys()


def test_a_config_tells_the_shape():
    config = json.loads((DEMO / "config.json").read_text())
    shape = catalogue.Geometry.of(config)
    assert (shape.hidden_size, shape.layers) == (config["hidden_size"], config["num_hidden_layers"])
    assert (shape.intermediate_size, shape.vocabulary) == (config["intermediate_size"], config["vocab_size"])
    assert (shape.heads, shape.kv_heads) == (config["num_attention_heads"], config["num_key_value_heads"])
    assert inspect(DEMO).geometry == shape and inspect(DEMO).image_side == config["img_size"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves; [0] is its time in seconds."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(sizing, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


TOTAL_MIB = 2 * least_mib(VL_7B)


def looks(*held_mib: int):
    """A card as it is at each look, with so much held by others; the last look stays."""
    left = list(held_mib)

    def look() -> Gpu:
        held = left.pop(0) if len(left) > 1 else left[0]
        return Gpu("3", "L4", TOTAL_MIB, TOTAL_MIB - held)

    return look


def test_a_card_of_its_own_is_not_waited_for(clock, caplog):
    driver_mib = OTHERS_MIB // 2
    assert fit_when_free(VL_7B, looks(driver_mib), Settings()) == sizing.fit(VL_7B, TOTAL_MIB - driver_mib)
    assert clock[0] == 0 and not caplog.records


def test_a_card_that_others_leave_is_waited_for(clock, caplog):
    look = looks(TOTAL_MIB, TOTAL_MIB - 5000, 9000, 0)
    assert fit_when_free(VL_7B, look, Settings()) == sizing.fit(VL_7B, TOTAL_MIB)
    assert clock[0] == 3 * sizing.LOOK_S and not caplog.records


def test_others_that_stay_are_waited_for_once_and_named_with_the_numbers(clock, caplog):
    caplog.set_level(logging.WARNING, "lingbi.model.sizing")
    held_mib = TOTAL_MIB - least_mib(VL_7B)
    found = fit_when_free(VL_7B, looks(held_mib), Settings())
    assert found == sizing.fit(VL_7B, TOTAL_MIB - held_mib) and clock[0] == sizing.LOOK_S
    (record,) = caplog.records
    said = record.getMessage()
    assert f"others hold {held_mib} of {TOTAL_MIB} MiB of GPU 3 (L4)" in said
    assert str(found) in said and str(sizing.fit(VL_7B, TOTAL_MIB)) in said


def test_fewer_bits_are_told_though_they_hold_as_many_tokens(clock, caplog):
    at_16 = Wanted(quant_policy="0", max_batch_size=BATCHES[0], prefill_tokens=1024)
    free_mib = least_mib(VL_7B, replace(at_16, session_len=VL_7B.session_len)) - 1
    found = fit_when_free(VL_7B, looks(TOTAL_MIB - free_mib), Settings(gpu_memory_mib=free_mib + 1))
    alone = sizing.fit(VL_7B, free_mib + 1)
    assert BITS[found.quant_policy] < BITS[alone.quant_policy] and found.cache_tokens >= alone.cache_tokens
    assert len(caplog.records) == 1


def test_others_are_not_named_where_there_is_room_enough_beside_them(clock, caplog):
    limit_mib = least_mib(VL_7B)
    settings = Settings(gpu_memory_mib=limit_mib)
    assert fit_when_free(VL_7B, looks(TOTAL_MIB - limit_mib), settings) == sizing.fit(VL_7B, limit_mib)
    assert not caplog.records


def test_the_wait_has_an_end_and_the_refusal_tells_what_is_free_then(clock):
    leaving = looks(*(TOTAL_MIB - mib for mib in range(1000)))
    with pytest.raises(ConfigurationError) as caught:
        fit_when_free(VL_7B, leaving, Settings())
    assert clock[0] == sizing.SETTLE_S
    free_mib = sizing.SETTLE_S // sizing.LOOK_S
    assert f"needs {least_mib(VL_7B)} MiB, and {free_mib} MiB are free on GPU 3 (L4)" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    MEASURED,
    ids=lambda row: f"{row['model']}-{row['prefill_tokens']}-{row['max_batch_size']}-{row.get('cards', 1)}",
)
def test_what_is_counted_is_what_was_measured(row):
    model = share_of(catalogue.find(row["model"]), row.get("cards", 1))
    settings = row["max_batch_size"], row["prefill_tokens"], model.session_len, catalogue.HD_NUM
    counted_mib = model.weight_bytes // sizing.MIB + sizing.runtime_mib(model, *settings) + row["cache_mib"]
    assert abs(counted_mib / row["peak_mib"] - 1) <= 0.02
