"""Judges whether two engines compute the same: from what each says of the next token at many places."""

import statistics
from dataclasses import asdict, dataclass

# Two orders of the same sums in half precision may differ so much more than one GPU differs from itself.
TIMES_ONES_OWN = 4.0
LEAST_NOISE = 0.05  # in log probability; below that nothing is worth telling
LEAST_SHARED = 0.5  # of the candidates that one engine lists, so many the other must list too

Places = list[dict[int, float]]  # for each place, {token: its log probability} of the likeliest


@dataclass(frozen=True)
class Comparison:
    """Two engines at the same places. typical, largest: difference of a token's log probability that both list; same: share
    of places where both find the same token likeliest; shared: share of the candidates that both list; gap: the largest
    distance, by the first engine, between its likeliest token and the other's, where they differ."""

    places: int
    typical: float
    largest: float
    same: float
    shared: float
    gap: float

    def told(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in asdict(self).items()}


def compare(first: Places, second: Places) -> Comparison:
    """Raises ValueError where the two are not about the same places."""
    pairs = list(zip(first, second, strict=True))
    differences = [abs(one[token] - other[token]) for one, other in pairs for token in one.keys() & other.keys()]
    shared = [len(one.keys() & other.keys()) / len(one) for one, other in pairs]
    bests = [(max(one, key=one.__getitem__), max(other, key=other.__getitem__)) for one, other in pairs]
    gaps = [
        one[best] - one.get(theirs, min(one.values()))
        for (one, _), (best, theirs) in zip(pairs, bests, strict=True)
        if best != theirs
    ]
    return Comparison(
        places=len(pairs),
        typical=statistics.median(differences) if differences else float("inf"),
        largest=max(differences, default=float("inf")),
        same=sum(best == theirs for best, theirs in bests) / len(bests),
        shared=statistics.mean(shared),
        gap=max(gaps, default=0.0),
    )


def is_same(found: Comparison, own: Comparison) -> bool:
    """Whether two engines differ by no more than rounding. own: the first engine beside itself, in other steps."""
    room = TIMES_ONES_OWN * max(own.typical, LEAST_NOISE / TIMES_ONES_OWN)
    return found.typical <= room and found.shared >= LEAST_SHARED


def first_difference(one: list[int], other: list[int]) -> int | None:
    """Where two answers part; None: nowhere."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
