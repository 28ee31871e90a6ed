"""``bench switching``: our scheduler and the other routers' on the same workloads, in virtual time.

Ours is the real machine and the real policy. A workload of twenty minutes takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from roundhouse.bench import journal
from roundhouse.bench.optimum import optimum
from roundhouse.bench.policies import PEERS
from roundhouse.bench.policies.ours import Ours
from roundhouse.bench.simulation import Request, Simulation
from roundhouse.bench.workload import Workload, WorkloadError, load
from roundhouse.residency.machine import policy
from roundhouse.residency.machine.machine import Machine

SHIPPED = Path(__file__).with_name("workloads")
DEFAULT = ("ours", "llama-swap", "ollama", "llmux", "llmsnap")
CONSTANTS = ("QUANTUM", "SURE", "ROUND_TRIP", "STREAM", "PATIENCE")
POLICIES = ("ours", *PEERS, "optimum")


@dataclass(frozen=True, slots=True)
class Result:
    """One policy on one workload: the figures, and the run they come from (none for the optimum)."""

    figures: dict[str, Any]
    run: Simulation | None


def workloads(paths: Iterable[Path]) -> list[Workload]:
    """The workloads of files and folders; of ours where none is named. Raises WorkloadError."""
    return [w for path in (list(paths) or [SHIPPED]) for w in load(path)]


def journals(paths: Iterable[Path]) -> list[Workload]:
    """What residency's journals tell, a workload for each device. Raises WorkloadError."""
    return [w for path in paths for w in journal.workloads(path)]


def policies(names: Iterable[str]) -> list[str]:
    """The policies named in comma lists, each once; the default ones where none is. Raises WorkloadError."""
    chosen = [name.strip() for text in names for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in POLICIES:
            raise WorkloadError(f"--policy {name!r}: there is no such policy; one of {', '.join(POLICIES)}")
    return list(dict.fromkeys(chosen)) or list(DEFAULT)


@contextmanager
def constants(settings: Iterable[str]) -> Iterator[None]:
    """Other constants of the policy (NAME=NUMBER) for the block. Raises WorkloadError."""
    before: dict[str, float] = {}
    try:
        for text in settings:
            name, _, value = text.partition("=")
            if name not in CONSTANTS:
                raise WorkloadError(f"--set {text!r}: the constants are {', '.join(CONSTANTS)}")
            try:
                number = float(value)
            except ValueError as error:
                raise WorkloadError(f"--set {text!r}: {value!r} is not a number") from error
            before.setdefault(name, getattr(policy, name))
            setattr(policy, name, number)
        yield
    finally:
        for name, number in before.items():
            setattr(policy, name, number)


def play(
    workload: Workload, name: str, *, warm: bool = False, max_wait_s: float | None = None, refuse: bool = True
) -> Simulation:
    """Run ``workload`` under the policy ``name``.

    ``warm``: ours has learned from a run of the same before. Without ``refuse`` it serves those who are past their
    bound, too.
    """
    if max_wait_s is not None:
        workload = workload.model_copy(update={"max_wait_s": max_wait_s})
    if name != "ours":
        simulation = Simulation(workload, PEERS[name])
        simulation.run()
        return simulation
    before: Machine | None = None
    for _ in range(2 if warm else 1):
        simulation = Simulation(workload, partial(Ours, before=before, refuse=refuse))
        simulation.run()
        assert isinstance(simulation.router, Ours)
        before = simulation.router.machine
    return simulation


def run(
    chosen: Sequence[Workload],
    names: Sequence[str],
    *,
    warm: bool = False,
    max_wait_s: float | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Every policy on every workload, in that order."""
    results = []
    for workload in chosen:
        for name in names:
            report(f"{workload.name}: {name}")
            if name == "optimum":
                results.append(Result(_best(workload), None))
            else:
                simulation = play(workload, name, warm=warm, max_wait_s=max_wait_s)
                results.append(Result(_figures(workload.name, name, simulation), simulation))
    return results


def _best(workload: Workload) -> dict[str, Any]:
    best = optimum(workload)
    empty = dict.fromkeys(FIGURES)
    known = {"loads": best.loads, "makespan_s": _round(best.makespan_s), "wait_mean_s": _round(best.wait_mean_s)}
    return {"workload": workload.name, "policy": "optimum", **empty, **known, "label": best.label}


FIGURES = (
    "loads",
    "switch_s",
    "makespan_s",
    "wait_mean_s",
    "wait_p50_s",
    "wait_p95_s",
    "wait_max_s",
    "served",
    "refused",
    "left",
    "serving_share",
    "by_model",
    "by_caller",
    "intervals_held",
)


def _figures(workload: str, name: str, simulation: Simulation) -> dict[str, Any]:
    requests = simulation.requests
    makespan = max((r.ended or 0.0 for r in requests), default=0.0)
    return {
        "workload": workload,
        "policy": name,
        "loads": len(simulation.switches),
        "switch_s": _round(sum(s.ended - s.began for s in simulation.switches)),
        "makespan_s": _round(makespan),
        **_waits(requests),
        **{outcome: sum(r.outcome == outcome for r in requests) for outcome in ("served", "refused", "left")},
        "serving_share": round(_serving_s(requests) / makespan, 4) if makespan else 0.0,
        "by_model": _by(requests, lambda r: r.model),
        "by_caller": _by(requests, lambda r: r.caller),
        "intervals_held": _intervals_held(simulation.router),
    }


def _intervals_held(router: object) -> float | None:
    """The share of waits that lay in the interval stated when they began; only ours states any."""
    if not isinstance(router, Ours) or not router.machine.tickets.calibration.stated:
        return None
    it = router.machine.tickets.calibration
    return round(it.held / it.stated, 4)


def _waits(requests: Iterable[Request]) -> dict[str, float | None]:
    waits = sorted(r.started - r.asked for r in requests if r.started is not None)
    if not waits:
        return dict.fromkeys(("wait_mean_s", "wait_p50_s", "wait_p95_s", "wait_max_s"))
    at = {name: _round(waits[min(len(waits) - 1, int(q * len(waits)))]) for name, q in (("p50", 0.5), ("p95", 0.95))}
    mean = _round(sum(waits) / len(waits))
    return {"wait_mean_s": mean, "wait_p50_s": at["p50"], "wait_p95_s": at["p95"], "wait_max_s": _round(waits[-1])}


def _by(requests: Sequence[Request], key: Callable[[Request], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(key(request), []).append(request)
    return {name: {"served": sum(r.outcome == "served" for r in g), **_waits(g)} for name, g in sorted(groups.items())}


def _serving_s(requests: Iterable[Request]) -> float:
    """Seconds in which at least one request was being answered."""
    total = until = 0.0
    for began, ended in sorted((r.started, r.ended or r.started) for r in requests if r.started is not None):
        if ended > until:
            total += ended - max(began, until)
            until = ended
    return total


def _round(seconds: float) -> float:
    return round(seconds, 3)
