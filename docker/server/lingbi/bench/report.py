"""The results of a benchmark: medians under stable names, and a table for people."""

import platform
import re
from collections.abc import Callable
from typing import Any

from lingbi.bench.rounds import PERCENTILES, interval, share_of
from lingbi.model.gpus import find_gpus

Figures = dict[str, Any]  # the figures of a round or of a side
Groups = dict[tuple[str, int], Figures]  # keys: (kind, people)


def _part_of(name: str, part: str) -> Callable[[Figures], float]:
    return lambda one: float(one[f"{name}_ms"][part])


FIGURES: dict[str, Callable[[Figures], float]] = {
    "req_s": lambda one: float(one["req_s"]),
    "tokens_s": lambda one: float(one["tokens_s"]),
} | {f"{name}_{part}": _part_of(name, part) for name in ("ttft", "gap") for part in PERCENTILES}
# MiB of GPU memory besides KV cache: right after the start, and after the first question about an image.
MEMORY = ("gpu_mib_without_cache", "gpu_mib_after_first")
HEAD = f"{'req/s':>18}{'TTFT p50':>12}{'gap p95':>12}"


def machine() -> dict[str, Any]:
    """The hardware of the measurement."""
    return {"gpus": [gpu.name for gpu in find_gpus()], "cpu": platform.processor() or platform.machine()}


def with_intervals(side: Figures) -> Groups:
    """{(kind, people): {figure: {median, ci95, values}}} of one side's rounds."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for one in side["rounds"]:
        groups.setdefault((one["kind"], one["people"]), []).append(one)
    return {
        key: {
            name: interval([get(one) for one in rounds if "ttft_ms" in one] or [0.0]) for name, get in FIGURES.items()
        }
        | {"failed": sum(one["failed"] for one in rounds)}
        for key, rounds in groups.items()
    }


def medians(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Per side: keys such as vl_7b_image_c32_req_s, vl_7b_ttft_c1_ms, vl_7b_start_s."""
    prefix = re.sub(r"\W+", "_", found["model"].removeprefix("internlm-xcomposer2-"))
    result = {}
    for side, figures in found["sides"].items():
        flat = {}
        for (kind, people), values in with_intervals(figures).items():
            flat[f"{prefix}_{kind}_c{people}_req_s"] = values["req_s"]["median"]
            flat[f"{prefix}_{kind}_c{people}_ttft_ms"] = values["ttft_p50"]["median"]
            if (kind, people) == ("image", 1):
                flat[f"{prefix}_ttft_c1_ms"] = values["ttft_p50"]["median"]
        if figures.get("starts_s"):
            flat[f"{prefix}_start_s"] = interval(figures["starts_s"])["median"]
            for name in MEMORY:
                flat[f"{prefix}_{name}"] = interval(figures[name])["median"]
        result[side] = flat
    return result


def table(found: dict[str, Any]) -> str:
    """A row per kind and number of people: requests/s and times of each side, ratios if there are two; then memory.

    Of several workers and one of them, which was asked by its share of the people: beside so many times that one.
    """
    sides = {side: with_intervals(figures) for side, figures in found["sides"].items()}
    workers = found.get("workers")
    lines = _beside_one(sides, workers) if workers else _beside(sides) if len(sides) <= 2 else _below(sides)
    for side, figures in found["sides"].items():
        if figures.get("starts_s"):
            line = f"{side}: starts {figures['starts_s']} s, without cache {figures['gpu_mib_without_cache']} MiB, "
            line += f"after a first question {figures['gpu_mib_after_first']} MiB"
            if "gpu_peak_mib" in figures:
                line += f", at most {figures['gpu_peak_mib']} MiB, planned {figures['gpu_planned_mib']} MiB"
            lines.append(line)
    return "\n".join(lines)


def _beside(sides: dict[str, Groups]) -> list[str]:
    lines = [f"{'':18}" + "".join(f"{side:>42}" for side in sides)]
    lines.append(f"{'kind':10}{'people':>8}" + HEAD * len(sides))
    for kind, people in next(iter(sides.values())):
        line = f"{kind:10}{people:>8}" + "".join(_figures(groups[kind, people]) for groups in sides.values())
        if len(sides) == 2:
            first, second = (groups[kind, people] for groups in sides.values())
            if first["req_s"]["median"] and first["ttft_p50"]["median"]:
                line += f"   x{second['req_s']['median'] / first['req_s']['median']:.2f}"
                line += f" ttft x{second['ttft_p50']['median'] / first['ttft_p50']['median']:.2f}"
        lines.append(line)
    return lines


def _beside_one(sides: dict[str, Groups], workers: int) -> list[str]:
    (name, together), (one_name, alone) = sides.items()
    lines = [f"{'':18}{name:>42}{one_name + ', by its share':>50}"]
    lines.append(f"{'kind':10}{'people':>8}" + HEAD + f"{'people':>8}" + HEAD + f"{f'all by {workers} x one':>16}")
    for kind, people in together:
        share = share_of(people, workers)
        all_of_them, one = together[kind, people], alone.get((kind, share))
        if one is None:  # interrupted before its turn
            continue
        line = f"{kind:10}{people:>8}{_figures(all_of_them)}{share:>8}{_figures(one)}"
        if one["req_s"]["median"] and one["ttft_p50"]["median"]:
            line += f"{all_of_them['req_s']['median'] / one['req_s']['median'] / workers:>11.3f}"
            line += f" ttft x{all_of_them['ttft_p50']['median'] / one['ttft_p50']['median']:.2f}"
        lines.append(line)
    return lines


def _below(sides: dict[str, Groups]) -> list[str]:
    lines = [f"{'kind':10}{'people':>8}{HEAD}"]
    for kind, people in next(iter(sides.values())):
        for side, groups in sides.items():
            lines.append(f"{kind:10}{people:>8}{_figures(groups[kind, people])}  {side}")
    return lines


def _figures(values: Figures) -> str:
    spread = f" ±{values['req_s']['ci95']:.2f}" if values["req_s"]["ci95"] is not None else ""
    figures = f"{values['req_s']['median']:>12.2f}{spread:>6}{values['ttft_p50']['median']:>10.1f}ms"
    return figures + f"{values['gap_p95']['median']:>10.1f}ms"
