"""A chart of days as SVG without words; what it shows stands beside it in the page, as numbers too."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 10, 100  # of a day's place, and of the whole, in the drawing's own units: the style sheet stretches it
GAP = 2


def bars(days: Sequence[tuple[int, ...]]) -> Markup:
    """Stacked bars, one for each day: its parts from the bottom up. The tallest has the whole height."""
    most = max((sum(parts) for parts in days), default=0) or 1
    drawn = [rectangle for place, parts in enumerate(days) for rectangle in _bar(place * WIDTH, parts, most)]
    return Markup(
        f'<svg class="trend" viewBox="0 0 {max(1, len(days)) * WIDTH} {HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{"".join(drawn)}</svg>'
    )


def _bar(left: int, parts: tuple[int, ...], most: int) -> list[str]:
    found, bottom = [], float(HEIGHT)
    for number, part in enumerate(parts):
        height = HEIGHT * part / most
        bottom -= height
        if part:
            found.append(
                f'<rect class="part{number}" x="{left + GAP / 2:g}" y="{bottom:.2f}" '
                f'width="{WIDTH - GAP}" height="{height:.2f}"/>'
            )
    return found


def progress(good: int, bad: int, total: int) -> Markup:
    """A bar of `total`, of which so much went well and so much did not."""
    widths = [100 * part / total if total else 0.0 for part in (good, bad)]
    return Markup(
        '<svg class="level progress" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="all" width="100" height="6"/><rect class="used" width="{widths[0]:.2f}" height="6"/>'
        f'<rect class="bad" x="{widths[0]:.2f}" width="{widths[1]:.2f}" height="6"/></svg>'
    )


def level(used: float, most: float) -> Markup:
    """A bar that is full when `used` reaches `most`, and says so by its class: `low`, `high` (from 80 %) or `over`."""
    share = used / most if most else 1.0
    kind = "over" if share >= 1 else "high" if share >= 0.8 else "low"
    return Markup(
        f'<svg class="level {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="all" width="100" height="6"/><rect class="used" width="{100 * min(1.0, max(0.0, share)):.2f}" height="6"/></svg>'
    )
