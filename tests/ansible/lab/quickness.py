"""How long hosts were away in a rollout, and how much of their turns was the rollout's own."""

import os
from statistics import median

AWAY_S = 5  # beyond stop and start
OURS_S = 15  # of a host's turn, what is neither drain, stop nor start
BUSY = 1.5  # load a core: other work is on the machine


def measure(rows: list, without_drain: bool) -> tuple:
    """(median of seconds that hosts were away beyond stop and start, the most of a turn that was ours).

    without_drain: answers that were made to take long are no part of it.
    """
    servers = [row for row in rows if row["unit"] == "server" and row["result"] == "rolled"]
    assert servers, rows
    own = ("stop s", "start s", "drain s") if without_drain else ("stop s", "start s")
    return (
        median(row["away s"] - sum(row[name] for name in own) for row in servers),
        max(row["ours s"] for row in servers),
    )


def expect_quick(rows: list, again, without_drain: bool = False) -> None:
    """again: rolls once more and returns its rows; asked only where the load says that the machine was busy."""
    away, ours = measure(rows, without_drain)
    load = os.getloadavg()[0] / os.cpu_count()
    print(f"away beyond stop and start {away:.1f} s, ours {ours:.1f} s, load a core {load:.1f}: {rows}")
    if (away > AWAY_S or ours >= OURS_S) and load > BUSY:
        away, ours = measure(again(), without_drain)
        print(f"again: away beyond stop and start {away:.1f} s, ours {ours:.1f} s")
    assert away <= AWAY_S and ours < OURS_S, rows
