"""The curves of a benchmark."""

from pathlib import Path
from typing import Any

import matplotlib

from lingbi.bench.report import with_intervals

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend is chosen before


def draw(found: dict[str, Any], file: Path) -> None:
    """Requests a second over the number of people, with confidence intervals: a panel for each kind."""
    sides = {side: with_intervals(figures) for side, figures in found["sides"].items()}
    kinds = list(dict.fromkeys(kind for groups in sides.values() for kind, _ in groups))
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 4), squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for side, groups in sides.items():
            points = [(people, values["req_s"]) for (one, people), values in groups.items() if one == kind]
            people = [point[0] for point in points]
            rates = [point[1]["median"] for point in points]
            panel.errorbar(
                people, rates, [point[1]["ci95"] or 0 for point in points], marker="o", capsize=3, label=side
            )
        panel.set_xscale("log", base=2)
        panel.set_xticks(people, people)
        panel.set_ylim(bottom=0)
        panel.set(title=kind, xlabel="people who ask at once", ylabel="requests/s")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(
        f"{found['model']}, {', '.join(found['machine']['gpus']) or 'CPU'}, {found['tokens']} tokens an answer"
    )
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
