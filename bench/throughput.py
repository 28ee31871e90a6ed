"""How much a gateway carries: the engine itself, plain LiteLLM and Roundhouse, in turn, in one run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any

from roundhouse.bench.load import Target, requests_per_s, tokens_per_s

ROUNDS = 5
"""Each arm's turns; the order is reversed every other time."""

AT_ONCE, REQUESTS = 16, 320
STREAMS = (1, 8, 32)
TOKENS = 3200
"""Over all streams of a turn, so that each turn takes a few seconds."""

Load = Callable[[Target], Awaitable[float]]


def loads() -> dict[str, Load]:
    """What is measured, by the name of its figure."""
    found: dict[str, Load] = {"requests_per_s": partial(requests_per_s, at_once=AT_ONCE, requests=REQUESTS)}
    for streams in STREAMS:
        found[f"tokens_per_s_{streams}"] = partial(tokens_per_s, streams=streams, tokens=TOKENS // streams)
    return found


async def measure(targets: dict[str, Target], report: Callable[[str], None]) -> dict[str, Any]:
    """Each load's median for each of ``targets``, and the median of the last one's ratios to the last but one.

    Raises:
        RuntimeError: an answer was no good.
    """
    figures: dict[str, Any] = {}
    base, ours = list(targets)[-2:]
    for name, load in loads().items():
        report(f"{name}: {ROUNDS} turns of {', '.join(targets)}")
        seen: dict[str, list[float]] = {target: [] for target in targets}
        for turn in range(ROUNDS):
            for target in targets if turn % 2 else reversed(targets):
                seen[target].append(await load(targets[target]))
        ratios = [mine / other for mine, other in zip(seen[ours], seen[base], strict=True)]
        figures[f"{name}_ratio"] = round(median(ratios), 3)
        figures[name] = {target: round(median(values)) for target, values in seen.items()}
    return figures
