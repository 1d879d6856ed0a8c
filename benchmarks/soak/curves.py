"""Line charts as SVG, in the style of the bar charts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from benchmarks.charts import STYLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 56, 16, 72, 32
GRID_LINES = 4
COLOURS = ("#0a7d6c", "#8c959f", "#b35900", "#6f5bd0")
LINES = "".join(f" .line-{number} {{ stroke: {colour}; }}" for number, colour in enumerate(COLOURS))
OWN = " .curve { fill: none; stroke-width: 1.6; } .grid { stroke: var(--line); } .key { font-size: 12px; }"


def curves(title: str, unit: str, lines: Mapping[str, Points], breaks_seconds: float) -> str:
    """Draw a line for each name, over minutes; a pause longer than that breaks it: the process was restarted."""
    points = [point for line in lines.values() for point in line]
    last = max([seconds for seconds, _ in points], default=1) or 1
    most = _round_up(max([value for _, value in points], default=1))
    across, up = (WIDTH - LEFT - RIGHT) / last, (HEIGHT - TOP - BOTTOM) / most
    drawn = "\n".join(
        f'<path class="curve line-{number}" d="{_path(line, across, up, breaks_seconds)}"/>'
        for number, line in enumerate(lines.values())
    )
    title = escape(title)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">
<style>{STYLE}{LINES}{OWN}</style>
<rect width="100%" height="100%" rx="6" fill="var(--paper)"/>
<text class="title" x="16" y="24">{title}</text>
<text class="soft" x="16" y="42">{escape(unit)}, over {last / 60:.1f} minutes</text>
{_legend(list(lines))}
{_grid(most, up)}
{drawn}
</svg>
"""


def _legend(names: Sequence[str]) -> str:
    step = (WIDTH - 32) // max(1, len(names))
    return "\n".join(
        f'<line class="curve line-{number}" x1="{x}" x2="{x + 20}" y1="58" y2="58"/>'
        f'<text class="key" x="{x + 26}" y="62">{escape(name)}</text>'
        for number, (x, name) in enumerate(zip(range(16, WIDTH, step), names, strict=False))
    )


def _grid(most: float, up: float) -> str:
    marks = [most * number / GRID_LINES for number in range(GRID_LINES + 1)]
    return "\n".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(mark, up):.1f}" y2="{_y(mark, up):.1f}"/>'
        f'<text class="soft" x="{LEFT - 8}" y="{_y(mark, up) + 4:.1f}" text-anchor="end">{mark:g}</text>'
        for mark in marks
    )


def _path(line: Points, across: float, up: float, breaks_seconds: float) -> str:
    parts: list[str] = []
    before = float("-inf")
    for seconds, value in line:
        parts.append(
            f"{'M' if seconds - before > breaks_seconds else 'L'}{LEFT + seconds * across:.1f} {_y(value, up):.1f}"
        )
        before = seconds
    return "".join(parts)


def _y(value: float, up: float) -> float:
    return HEIGHT - BOTTOM - value * up


def _round_up(value: float) -> float:
    """Return a number at least as large whose quarters are easy to read."""
    step = 4
    while step < value:
        step *= 2 if str(step).startswith(("4", "2")) else 5
    return next((mark for mark in (step // 2, step * 5 // 8, step * 3 // 4) if mark >= value and mark % 4 == 0), step)
