"""The record of a run, for docs/measurements/: what was measured, on what, with what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from tests.gpu.machine import gib
from tests.gpu.ram import Ram
from tests.gpu.seen import Run, Seen

WRITTEN = pytest.StashKey[Path]()
"""Where the record is, for whoever looks at the end of the output."""


def write(facts: Mapping[str, str], run: Run, folder: Path) -> Path:
    """Write the record of this form on this card, in place of an older one; its path."""
    words = f"{facts['card']} {'wsl2 ' if ', WSL2' in facts['system'] else ''}{run.form}"
    path = folder / f"sleep-{re.sub('[^a-z0-9]+', '-', words.lower()).strip('-')}.md"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text(facts, run), encoding="utf-8")
    return path


def text(facts: Mapping[str, str], run: Run) -> str:
    """The record: seconds as median (least-most, how many), memory in GiB."""
    lines = [
        f"# The sleep ladder on {facts['card']}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}. Written by `./roundhouse test -m gpu --gpu-form {run.form}`.",
        "",
        *table(["", ""], [[name, it] for name, it in {**facts, **told(run), **run.remarks}.items()]),
    ]
    for title, seen in (("Models that take turns", run.models), ("One of them with other flags", run.variants)):
        if seen:
            lines += ["", f"## {title}", "", *part(seen)]
    return "\n".join([*lines, ""])


def told(run: Run) -> dict[str, str]:
    """What the driver says of processes, and which way engines start."""
    known = [it for it in run.all if it.told_apart is not None]
    ways = [way for it in run.all for way in it.ways]
    return {
        "the driver tells processes apart": ", ".join(sorted({"yes" if it.told_apart else "no" for it in known})),
        "its lists, an engine awake": known[0].listed if known else "",
        "starts": ", ".join(f"{ways.count(it)} {it[1]} (should be {it[0]})" for it in dict.fromkeys(ways)),
    }


def part(seen: Sequence[Seen]) -> list[str]:
    """Times, memory of the card and RAM of some models, a table each."""
    head = ["", *(it.model for it in seen)]
    phases = list(dict.fromkeys(phase for it in seen for phase in it.phases))
    lines = ["Seconds: median (least-most, number of times).", ""]
    lines += table(head, [[phase, *(times(it.phases.get(phase, [])) for it in seen)] for phase in phases])
    lines += ["", "Memory of the card in GiB, as the driver says it.", ""]
    rows = [
        row("most while it starts", seen, lambda it: max(it.peaks, default=None)),
        row("awake, most", seen, lambda it: max(it.awake, default=None)),
        row("awake, estimated", seen, lambda it: it.expected.awake if it.expected else None),
    ]
    for level in (1, 2):
        rows += [
            row(f"asleep at {level}, {when}", seen, partial(asleep, level=level, index=index))
            for when, index in (("first", 0), ("last", -1))
        ]
    rows.append(row("asleep, estimated", seen, lambda it: it.expected.residual if it.expected else None))
    lines += table(head, rows)
    lines += ["", "RAM in GiB: of its processes; and how much more the machine has locked, and less available, than"]
    lines += ["before it started. Pinned RAM is to be found in one of these.", ""]
    columns = ["anonymous", "shared", "locked", "pinned", "machine locked", "unevictable", "less available"]
    return [*lines, *table(["", *columns], list(ram_rows(seen)))]


def row(name: str, seen: Sequence[Seen], of: Callable[[Seen], int | None]) -> list[str]:
    """One figure of each model; nothing where there is none."""
    values = [of(it) for it in seen]
    return [name, *("" if value is None else gib(value) for value in values)]


def asleep(it: Seen, level: int, index: int) -> int | None:
    """What it kept of the card after its first sleep, or its last."""
    return it.asleep[level][index] if it.asleep[level] else None


def ram_rows(seen: Sequence[Seen]) -> list[list[str]]:
    """RAM of each model in each state, first and last time."""
    rows = []
    for it in seen:
        before = next(iter(it.ram["before its start"]), None)
        if before is None:
            continue
        for state in ("awake", "asleep at 1", "asleep at 2"):
            found = it.ram[state]
            for when, ram in [("first", found[0]), ("last", found[-1])][: len(found)] if found else []:
                rows.append([f"{it.model}, {state}, {when}", *(gib(size) for size in sizes(ram, before))])
        if it.expected is not None:
            rows.append([f"{it.model}, pinned by estimate", "", "", "", gib(it.expected.pinned), "", "", ""])
    return rows


def sizes(now: Ram, before: Ram) -> list[int]:
    """The columns of RAM."""
    return [
        now.anonymous,
        now.shared,
        now.locked,
        now.pinned,
        now.machine_locked - before.machine_locked,
        now.machine_unevictable - before.machine_unevictable,
        before.machine_available - now.machine_available,
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    cells = [[" ".join(cell.split()).replace("|", "/") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


def times(values: list[float]) -> str:
    """``0.31 (0.29-0.40, 8)``"""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f}, {len(values)})" if values else ""
