"""The record of a run, for docs/measurements/: what was measured, on what, with what."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from roundhouse.launchers.host import internals
from tests.gpu.cycle import Seen

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "measurements"
GIB = 2**30


def write(card: str, seen: Sequence[Seen], folder: Path = FOLDER) -> Path:
    """Write the record of this card, in place of an older one; its path."""
    path = folder / f"sleep-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}.md"
    path.write_text(text(card, seen), encoding="utf-8")
    return path


def text(card: str, seen: Sequence[Seen]) -> str:
    """The record: seconds as median (least-most, how many), memory in GiB."""
    lines = [
        f"# The sleep ladder on {card}",
        "",
        f"vLLM {internals.VERSION}, Python {platform.python_version()}, {platform.system()} {platform.release()},"
        f" {datetime.now(UTC):%Y-%m-%d}. Written by `./roundhouse test -m gpu`.",
        "",
        "Seconds: median (least-most, number of times).",
        "",
    ]
    phases = list(dict.fromkeys(phase for it in seen for phase in it.phases))
    head = ["", *(it.model for it in seen)]
    lines += table(head, [[phase, *(times(it.phases.get(phase, [])) for it in seen)] for phase in phases])
    lines += ["", "Memory of the card in GiB, as the driver says it.", ""]
    rows = [
        ["awake, most", *(gib(max(it.awake)) for it in seen)],
        ["awake, estimated", *(gib(it.expected.awake) if it.expected else "" for it in seen)],
    ]
    for level in (1, 2):
        rows += [
            [f"asleep at {level}, first", *(gib(it.asleep[level][0]) if it.asleep[level] else "" for it in seen)],
            [f"asleep at {level}, last", *(gib(it.asleep[level][-1]) if it.asleep[level] else "" for it in seen)],
        ]
    rows.append(["asleep, estimated", *(gib(it.expected.residual) if it.expected else "" for it in seen)])
    return "\n".join([*lines, *table(head, rows), ""])


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def times(values: list[float]) -> str:
    """``0.31 (0.29-0.40, 8)``"""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f}, {len(values)})" if values else ""


def gib(size: int) -> str:
    """Two places."""
    return f"{size / GIB:.2f}"
