"""A rollout over many hosts, simulated: how long it takes, how much of the fleet serves meanwhile, how weights spread.

`python -m tests.ansible.fleet_simulation` prints the tables of docs/rollout-reference.md. The model is the playbook's: the first
host alone, then batches; a batch ends with its slowest host at every task; hosts differ in their times.
"""

import argparse
import random
import sys
from dataclasses import dataclass
from statistics import mean


@dataclass(frozen=True)
class Times:
    """What a host's turn is made of, in seconds: means, and how much hosts differ (log-normal sigma)."""

    drain: float = 20
    stop: float = 5
    start: float = 90
    smoke: float = 5
    ours: float = 5
    spread: float = 0.3

    def turn(self, chance: random.Random) -> tuple:
        """The steps of one host."""
        steps = (self.drain, self.stop, self.start, self.smoke)
        return tuple(step * chance.lognormvariate(0, self.spread) for step in steps)


def batches(hosts: int, serial: str) -> list:
    """Sizes of the batches: the first host alone, then as `serial` says, in hosts or in percent of all."""
    size = max(1, int(hosts * int(serial[:-1]) / 100)) if serial.endswith("%") else int(serial)
    full, rest = divmod(hosts - 1, size)
    return [1] + [size] * full + ([rest] if rest else [])


def roll(hosts: int, serial: str, times: Times, chance: random.Random) -> tuple:
    """(seconds of the rollout, mean away time of a host): every task waits for the batch's slowest."""
    total, away = 0.0, []
    for size in batches(hosts, serial):
        steps = [max(column) for column in zip(*(times.turn(chance) for _ in range(size)), strict=True)]
        total += sum(steps) + times.ours
        away += [sum(steps) + times.ours] * size
    return total, mean(away)


def rounds_until(hosts: int, fan_out: int) -> int:
    """Rounds of a tree in which each holder serves fan_out others; test_decisions.py compares it with the playbook's."""
    holders, rounds = 1, 0
    while holders < hosts:
        holders, rounds = holders * (1 + fan_out), rounds + 1
    return rounds


def spread(hosts: int, size_gb: float, line_gbit: float, fan_out: int, chance: random.Random) -> tuple:
    """(rounds, seconds) until all hosts have the weights: in a round each holder serves fan_out others over its line."""
    rounds = rounds_until(hosts, fan_out)
    copy_s = size_gb * 8 / line_gbit * fan_out
    return rounds, sum(copy_s * max(chance.uniform(1.0, 1.2) for _ in range(8)) for _ in range(rounds))


def median(values: list) -> float:
    return sorted(values)[len(values) // 2]


def print_rollouts(hosts: int, runs: int, chance: random.Random) -> None:
    print(
        f"{hosts} hosts\n| serial | batches | away at once | time | a host is away |\n| --- | --- | --- | --- | --- |"
    )
    for serial in ("1", "2%", "5%", "10%", "20%"):
        rolled = [roll(hosts, serial, Times(), chance) for _ in range(runs)]
        most = max(batches(hosts, serial))
        minutes = median([total for total, _ in rolled]) / 60
        print(
            f"| {serial} | {len(batches(hosts, serial))} | {most} ({100 * most / hosts:.1f} %) | {minutes:.0f} min "
            f"| {median([away for _, away in rolled]):.0f} s |"
        )


def print_spreads(hosts: int, runs: int, chance: random.Random) -> None:
    print(f"\nweights of 17.3 GB to {hosts} hosts\n| line | way | rounds | time |\n| --- | --- | --- | --- |")
    for line in (1, 10):
        alone = 17.3 * 8 / line * (hosts - 1) / 60
        print(f"| {line} Gbit/s | from one host | {hosts - 1} | {alone:.0f} min |")
        for fan_out in (1, 2):
            done = [spread(hosts, 17.3, line, fan_out, chance) for _ in range(runs)]
            minutes = median([seconds for _, seconds in done]) / 60
            print(f"| {line} Gbit/s | tree, {fan_out} at once | {done[0][0]} | {minutes:.1f} min |")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--runs", type=int, default=101)
    options = parser.parse_args(arguments)
    chance = random.Random(1)
    print_rollouts(options.hosts, options.runs, chance)
    print_spreads(options.hosts, options.runs, chance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
