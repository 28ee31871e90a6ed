"""Our policy against the best of the others in hindsight, over random workloads that nobody tuned for.

The best is chosen after the fact, for each workload anew, among those that keep the bound; nobody could have known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, inf, log
from typing import Any

from roundhouse.bench.generate import KINDS, generate
from roundhouse.bench.simulation import Simulation
from roundhouse.bench.switching import play
from roundhouse.bench.workload import Workload

OTHERS = ("llama-swap-unlimited", "ollama", "ollama-8", "llmux", "llmsnap")
SMALL_S = 0.05
"""Means below this count as this: a ratio of two waits that nobody notices says nothing."""

CLOSE = 1.06


def bound_s(workload: Workload) -> float:
    """The longest that anybody may wait where there is no overload: ``max_wait_s``, or two rounds where those are
    longer, and one switch and two services."""
    longest = dict.fromkeys(workload.models, 0.0)
    asked = [(it.model, it.service_s) for it in workload.arrivals]
    asked += [(it.model, it.service_s) for agent in workload.agents for it in agent.steps]
    for model, service_s in asked:
        longest[model] = max(longest[model], service_s)
    a_round = sum(spec.switch_s + longest[name] for name, spec in workload.models.items())
    switch = max(spec.switch_s for spec in workload.models.values())
    return max(workload.max_wait_s or inf, 2 * a_round) + switch + 2 * max(longest.values())


def waits(simulation: Simulation) -> tuple[float, float]:
    """Mean and longest wait; a request that never started has waited for ever."""
    all_waits = [r.started - r.asked if r.started is not None else inf for r in simulation.requests]
    return sum(all_waits) / len(all_waits), max(all_waits)


def contest(seeds: Iterable[int], report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Play the workloads of ``seeds``; ratios of mean waits, by kind, and how often the bound was broken.

    Nobody is refused, so that the means compare the same requests. A workload on which everybody breaks the bound has
    more work than time, and counts as overload.
    """
    ratios: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    broken, overload, played = [], 0, 0
    for seed in seeds:
        workload = generate(seed)
        if not workload.requests:
            continue
        played += 1
        bound = bound_s(workload)
        mean, longest = waits(play(workload, "ours", refuse=False))
        others = [waits(play(workload, name)) for name in OTHERS]
        keeping = [m for m, most in others if most <= bound]
        if longest > bound:
            overload += not keeping
            broken += [seed] if keeping else []
        best = min(keeping or [m for m, _ in others])
        ratios[KINDS[seed % 3]].append((max(mean, SMALL_S) / max(best, SMALL_S), seed))
        if played % 100 == 0:
            report(f"{played} workloads played")
    every = [it for of_kind in ratios.values() for it in of_kind]
    return {
        "workloads": played,
        "ratio": _mean(every),
        "by_kind": {kind: _mean(it) for kind, it in ratios.items()},
        "below_1.06": round(sum(ratio < CLOSE for ratio, _ in every) / len(every), 3),
        "worst": [{"seed": seed, "ratio": round(ratio, 2)} for ratio, seed in sorted(every, reverse=True)[:5]],
        "bound_broken": broken,
        "overload": overload,
    }


def _mean(ratios: list[tuple[float, int]]) -> float | None:
    """The geometric mean."""
    return round(exp(sum(log(ratio) for ratio, _ in ratios) / len(ratios)), 3) if ratios else None
