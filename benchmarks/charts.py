"""Bar charts as SVG, legible on light and on dark pages."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measures import Figure
    from benchmarks.records import Record
    from benchmarks.rows.row import Row

WIDTH, LABELS, VALUES, TOP, BAR, STEP = 760, 290, 110, 54, 20, 32
OURS = ("haystream", "gateway")
STYLE = """
  :root { --paper: #ffffff; --ink: #1f2328; --soft: #656d76; --line: #d0d7de; --other: #8c959f; --ours: #0a7d6c; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --other: #6e7681; --ours: #2fb8a0; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink); }
  .title { font-weight: 600; font-size: 15px; } .soft { fill: var(--soft); font-size: 12px; }
  .other { fill: var(--other); } .ours { fill: var(--ours); } .spread { stroke: var(--ink); stroke-width: 1.5; }
"""


def chart(row: Row, record: Record) -> str:
    """Draw a row's main measure: a bar to the median, a thin line from the least to the most of the rounds."""
    drawn = [
        (entrant.key, entrant.title, record.figures[entrant.key][row.chart])
        for entrant in row.entrants
        if row.chart in record.figures.get(entrant.key, {})
    ]
    known = [figure.most for _, _, figure in drawn if not math.isnan(figure.most)]
    scale = (WIDTH - LABELS - VALUES) / max([*known, 1e-9])
    height = TOP + STEP * len(drawn) + 12
    bars = "\n".join(
        _label(TOP + STEP * place, title) + _bar(TOP + STEP * place, figure, row.chart.text(figure.middle), scale, key)
        for place, (key, title, figure) in enumerate(drawn)
    )
    title = escape(row.title)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">
<style>{STYLE}</style>
<rect width="100%" height="100%" rx="6" fill="var(--paper)"/>
<text class="title" x="16" y="24">{title}</text>
<text class="soft" x="16" y="42">{escape(row.chart.name)}, {escape(row.chart.unit)}</text>
{bars}
</svg>
"""


def _label(y: int, title: str) -> str:
    return f'<text x="{LABELS - 10}" y="{y + 15}" text-anchor="end">{escape(title)}</text>'


def _bar(y: int, figure: Figure, value: str, scale: float, key: str) -> str:
    length = 0 if math.isnan(figure.middle) else max(1.0, figure.middle * scale)
    spread = ""
    if len(figure.values) > 1 and length:
        ends = f'x1="{LABELS + figure.least * scale:.1f}" x2="{LABELS + figure.most * scale:.1f}"'
        spread = f'<line class="spread" {ends} y1="{y + BAR / 2}" y2="{y + BAR / 2}"/>'
    right = LABELS + max(length, figure.most * scale if spread else 0) + 8
    kind = "ours" if key.startswith(OURS) else "other"
    return (
        f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        f'{spread}<text x="{right:.1f}" y="{y + 15}">{value}</text>'
    )
