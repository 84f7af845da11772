"""What a wake took, part by part. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from lingbi.http.readiness import LOADING, LOADING_MODEL, PREPARING, PROBING, READY, WEIGHTS_LOADED

# The part that begins with each phase.
PARTS = {PREPARING: "fit", LOADING: "tower", LOADING_MODEL: "weights", WEIGHTS_LOADED: "engine", PROBING: "probe"}


def parts_of(
    times: Sequence[tuple[str, float]], began: float, waited_s: float, check_s: float, order: Mapping[str, Any]
) -> dict[str, float]:
    """{part: seconds}, from the first request to the model's being ready.

    times: when each phase began; began: when the order to wake came; waited_s: how long the first request had waited
    then; check_s: how long checking the weights took; order: with what putting another model away took.
    """
    parts = {"check": min(check_s, waited_s)}
    parts |= {"drain": order.get("drain_s", 0.0), "exit": order.get("exit_s", 0.0)}
    parts["turn"] = max(0.0, waited_s - sum(parts.values()))  # until the other model might go
    phases = [*times]
    ends = [when for _, when in phases[1:]]
    for (phase, when), end in zip(phases, ends, strict=False):
        if phase in PARTS:
            parts[PARTS[phase]] = parts.get(PARTS[phase], 0.0) + end - when
    ready = next((when for phase, when in phases if phase == READY), began)
    parts["other"] = max(0.0, ready - began - sum(parts[part] for part in PARTS.values() if part in parts))
    return {part: round(seconds, 3) for part, seconds in parts.items()}
