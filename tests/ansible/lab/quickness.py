"""How long hosts were away in rollouts, and how much of their turns was the rollout's own."""

from statistics import median

AWAY_S = 5  # beyond stop and start
OURS_S = 15  # of a host's turn, what is neither drain, stop nor start


def expect_quick(rows: list) -> None:
    """rows: of several rollouts; the medians of the servers that were rolled, since this machine has other work too."""
    servers = [row for row in rows if row["unit"] == "server" and row["result"] == "rolled"]
    assert servers, f"no server was rolled: {rows}"
    away = [row["away s"] - row["stop s"] - row["start s"] for row in servers]
    ours = [row["ours s"] for row in servers]
    print(f"away beyond stop and start {sorted(away)} s, ours {sorted(ours)} s")
    assert median(away) <= AWAY_S and median(ours) < OURS_S, servers
