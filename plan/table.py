"""The plan for a person."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from roundhouse.footprint.need import GIB
from roundhouse.plan.report import ModelPlan, Plan

WIDTH = 118
"""Columns where the output is no terminal, and at least so many where it is: narrower, the table cannot be read."""

COLUMNS = ("WEIGHTS", "PEAK", "AWAKE", "ASLEEP", "KV/TOKEN", "CONTEXT", "MAX fp16", "MAX fp8", "RAM")
LEGEND = (
    "Sizes in GiB. PEAK: a step and its pictures, beside weights. AWAKE, ASLEEP: on the device. KV/TOKEN: at fp16. "
    "MAX: the longest context with an fp16 or fp8 KV cache. RAM: pinned at level 1. Level 2 reads weights again."
)
SLEEPS = {1: "level 1", 2: "level 2", None: "stopped"}
FITS = {True: Text("yes", "green"), False: Text("no", "bold red"), None: Text("unknown", "yellow")}


def text(plan: Plan) -> str:
    """``plan`` as lines for standard output, in colour where that is a terminal."""
    out = Console(highlight=False)
    out.width = max(WIDTH, out.width) if out.is_terminal else WIDTH
    with out.capture() as captured:
        out.print(render(plan))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def render(plan: Plan) -> RenderableType:
    """Devices, the table of models, what to change, who fits beside whom."""
    parts: list[RenderableType] = [Text(line) for line in _head(plan)]
    parts += [Text(""), _models(plan), Text(LEGEND, "dim")]
    remarks = list(_remarks(plan))
    if remarks:
        parts += [Text(""), *(Padding(it, (0, 0, 0, 2)) for it in remarks)]
    parts += [Text(""), *(Text(line) for line in _together(plan))]
    return Group(*parts)


def _head(plan: Plan) -> list[str]:
    lines = []
    for it in plan.devices:
        room = it.room
        lines.append(f"{it.id}: {_size(room.capacity)} ({it.origin}), {_size(room.reserve)} of it kept free for others")
    lines.append(f"RAM: {_size(plan.ram)}, {_size(plan.ram_budget)} of it for the weights of sleeping models")
    return lines + [f"Note: {note}" for note in plan.notes]


def _models(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption_justify="left")
    for name in ("MODEL", "FITS"):
        table.add_column(name)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("SLEEPS AT")
    for name, it in plan.models.items():
        table.add_row(name, FITS[it.fits], *_cells(it))
    return table


def _cells(it: ModelPlan) -> list[str]:
    found, need = it.subject.estimate, it.footprint
    cache = found.cache if found is not None else None
    limit = found.shapes.max_position if found is not None and found.shapes is not None else None
    context = found.context if found is not None and not found.flags.any_length else None
    sleeps = "" if it.fits is False or need is None else SLEEPS[it.level]
    return [
        _number(found.weights if found is not None else None),
        _number(found.peak if found is not None and cache is not None else None),
        _number(need.awake) if need is not None and it.fits is not False else "",
        _number(need.residual) if need is not None and it.level is not None else "",
        f"{cache.per_token(16) // 1024} KiB" if cache is not None else "?",
        f"{context:,}" if context else "",
        *(_tokens(tokens, limit) for tokens in it.tokens),
        _number(need.pinned) if need is not None and it.level == 1 else "",
        "never" if it.subject.fixed and it.fits else sleeps,
    ]


def _number(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.2f}"


def _tokens(tokens: int | None, limit: int | None) -> str:
    if tokens is None:
        return "?"
    if limit is not None and tokens >= limit:
        return f"{limit:,}*"
    return f"{max(0, tokens):,}"


def _remarks(plan: Plan) -> list[Text]:
    result = []
    for name, it in plan.models.items():
        if it.fits is False:
            result.append(Text(f"{name} does not fit: {it.advice}.", "red"))
        elif it.advice:
            result.append(Text(f"{name} {it.advice}.", "yellow"))
    result += [Text(line, "yellow") for it in plan.models.values() if (line := _loading(it, plan))]
    unknown: dict[str, list[str]] = {}
    for name, it in plan.models.items():
        for text in it.unknown:
            unknown.setdefault(text, []).append(name)
    result += [Text(f"{', '.join(names)}: {text}.", "dim") for text, names in unknown.items()]
    limits = [it for it in plan.models.values() if _limited(it)]
    if limits:
        result.append(Text("* the model's own limit; the cache would hold more.", "dim"))
    return result


def _loading(it: ModelPlan, plan: Plan) -> str | None:
    """What to know of a model that takes more while it is loaded than it does afterwards."""
    found = it.subject.estimate
    capacity = next(device.room.capacity for device in plan.devices if device.id == it.subject.device)
    working = found.working(capacity) if found is not None else None
    if found is None or not it.fits or it.subject.memory is not None or (found.loaded or 0) <= (working or 0):
        return None
    return f"{it.subject.name} needs {_size(found.loaded)} while its weights are loaded, {_size(working)} afterwards."


def _limited(it: ModelPlan) -> bool:
    found = it.subject.estimate
    limit = found.shapes.max_position if found is not None and found.shapes is not None else None
    return limit is not None and any(tokens is not None and tokens >= limit for tokens in it.tokens)


def _together(plan: Plan) -> list[str]:
    lines = []
    for name, it in plan.models.items():
        if it.beside is None or not (it.beside.asleep or it.beside.stopped):
            continue
        parts = [f"{other} asleep at level {level}" for other, level in it.beside.asleep.items()]
        parts += [f"{other} stopped" for other in it.beside.stopped]
        lines.append(f"With {name} awake: {', '.join(parts)}; {_size(max(0, it.beside.free))} are left.")
    pairs = "; ".join(" and ".join(pair) for pair in plan.pairs)
    lines.append(f"Awake side by side: {pairs or 'no two of them'}.")
    short = "" if plan.ram_needed <= plan.ram else ", more than there is"
    lines.append(f"RAM needed: {_size(plan.ram_needed)}{short}, {_size(plan.pinned)} of it for sleepers' weights.")
    return lines


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.2f} GiB"
