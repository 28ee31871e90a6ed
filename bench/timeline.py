"""A picture of what routers did: a panel for each policy, a lane for each model, time to the right, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from roundhouse.bench.simulation import Request, Simulation

WIDTH, LEFT, RIGHT, LANE, HEAD, AXIS = 1000, 110, 20, 34, 30, 30
"""Pixels: of the whole, of the names, of a lane and of a panel's heading and axis."""

COLOURS = ("#2f6fb0", "#c2571a", "#3c8a4e", "#8a4aa0", "#9c7a12", "#4a8d92")
STYLE = """text{font:12px system-ui,sans-serif;fill:#333}.head{font-weight:600}.faint{fill:#777}
.lane{fill:#f3f4f6}.switch{fill:url(#switching)}.wait{stroke-width:1;opacity:.35}.tick{stroke:#ccc}"""


def svg(panels: Sequence[tuple[str, Simulation]]) -> str:
    """The picture of ``panels``: (title, run). All have the time axis of the longest."""
    end = max((r.ended or 0.0 for _, run in panels for r in run.requests), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / end
    parts, y = [], 10.0
    for title, run in panels:
        height = HEAD + LANE * len(run.workload.models) + AXIS
        parts.append(f'<g transform="translate(0,{y:g})">{_panel(title, run, scale, end)}</g>')
        y += height
    pattern = (
        '<pattern id="switching" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#e3e3e3"/><rect width="2" height="6" fill="#bbb"/></pattern>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:g}" viewBox="0 0 {WIDTH} {y:g}" '
        f'role="img"><style>{STYLE}</style><defs>{pattern}</defs><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(title: str, run: Simulation, scale: float, end: float) -> str:
    waits = [r.started - r.asked for r in run.requests if r.started is not None]
    mean = sum(waits) / len(waits) if waits else 0.0
    done = max((r.ended or 0.0 for r in run.requests), default=0.0)
    text = f"{len(run.switches)} loads, mean wait {mean:.1f} s, longest {max(waits, default=0.0):.0f} s"
    text += f", all done at {done:.0f} s"
    parts = [f'<text class="head" x="10" y="18">{escape(title)}</text>']
    parts.append(f'<text x="{LEFT + 120}" y="18">{escape(text)}</text>')
    for index, model in enumerate(run.workload.models):
        parts.append(_lane(model, index, run, scale))
    bottom = HEAD + LANE * len(run.workload.models)
    for moment in _ticks(end):
        x = LEFT + moment * scale
        parts.append(f'<line class="tick" x1="{x:.1f}" y1="{HEAD}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{moment:g} s</text>')
    return "".join(parts)


def _lane(model: str, index: int, run: Simulation, scale: float) -> str:
    top, colour = HEAD + LANE * index, COLOURS[index % len(COLOURS)]
    width = WIDTH - LEFT - RIGHT
    parts = [f'<text x="10" y="{top + 20}">{escape(model[:14])}</text>']
    parts.append(f'<rect class="lane" x="{LEFT}" y="{top + 2}" width="{width}" height="{LANE - 4}"/>')
    for switch in run.switches:
        if switch.model == model:
            wide = max(0.5, (switch.ended - switch.began) * scale)
            parts.append(
                f'<rect class="switch" x="{LEFT + switch.began * scale:.1f}" y="{top + 2}" width="{wide:.1f}" '
                f'height="{LANE - 4}"><title>{escape(model)} is brought on: {switch.began:.1f} to {switch.ended:.1f} s'
                "</title></rect>"
            )
    mine = [r for r in run.requests if r.model == model and r.started is not None]
    rows = _rows(mine)
    step = (LANE - 8) / max(1, max(rows.values(), default=0) + 1)
    for request in mine:
        parts.append(_bar(request, top + 4 + rows[request.number] * step, max(1.0, step - 1), colour, scale))
    return "".join(parts)


def _rows(requests: Sequence[Request]) -> dict[int, int]:
    """A row for every request, so that two that overlap have different ones."""
    free: list[float] = []
    rows: dict[int, int] = {}
    for request in sorted(requests, key=lambda r: r.started or 0.0):
        began, ended = request.started or 0.0, request.ended or 0.0
        row = next((i for i, until in enumerate(free) if until <= began), len(free))
        if row == len(free):
            free.append(0.0)
        free[row], rows[request.number] = ended, row
    return rows


def _bar(request: Request, y: float, height: float, colour: str, scale: float) -> str:
    began, ended = request.started or 0.0, request.ended or 0.0
    wide = max(0.6, (ended - began) * scale)
    return (
        f'<rect x="{LEFT + began * scale:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{height:.1f}" fill="{colour}">'
        f"<title>{escape(request.caller)}: waited {began - request.asked:.1f} s</title></rect>"
    )


def _ticks(end: float) -> list[float]:
    step = next((s for s in (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600) if end / s <= 12), 7200)
    return [float(moment) for moment in range(0, int(end) + 1, step)]
