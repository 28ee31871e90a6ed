"""What the best schedule could do that knew the future: exact for small workloads, else a proven lower bound.

The search is Dijkstra's over the states of the device and the callers, its cost the waiter-seconds so far. It may
start a switch, let requests in or idle at every event; doing either between two events is never better. A request
that waits costs the same whatever it has waited, so a state needs no history, and equal states are met once.

The bound holds for every schedule: the model that is brought on as the k-th for the first time is ready no sooner
than the k switches and one answer of each model before it take, whichever order is the best.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from roundhouse.bench.workload import Workload

STATES = 30_000
"""States that are looked at before the search gives up: a few seconds."""

SUBSETS = 3
"""So many waiting requests of one model are let in one by one where that may be better; of more, all or none."""

WAITS, DONE = -1.0, -2.0
TICK = 1e-6


@dataclass(frozen=True, slots=True)
class Optimum:
    """Mean wait and makespan in seconds. ``label``: "exact" or "lower bound"; ``loads`` of the exact schedule."""

    label: str
    wait_mean_s: float
    makespan_s: float
    loads: int | None


@dataclass(frozen=True, slots=True)
class _State:
    """``left``: seconds until each lane's next event, or WAITS, or DONE. ``switch_s``: until the switch is over."""

    resident: str | None
    switch_s: float
    steps: tuple[int, ...]
    running: tuple[bool, ...]
    left: tuple[float, ...]


class _Search:
    """Lanes are the agents, and every arrival as an agent of one step."""

    def __init__(self, workload: Workload) -> None:
        self.models = workload.models
        agents = [([(s.model, s.service_s, s.think_s) for s in a.steps], a.start_s) for a in workload.agents if a.steps]
        agents += [([(a.model, a.service_s, 0.0)], a.t) for a in workload.arrivals]
        self.lanes = [steps for steps, _ in agents]
        self.begin = tuple(start for _, start in agents)
        self.exact = True

    def run(self) -> tuple[float, int] | None:
        """Least waiter-seconds and the loads of that schedule; ``None`` when it gave up."""
        lanes = range(len(self.lanes))
        first = _State(None, 0.0, tuple(0 for _ in lanes), tuple(False for _ in lanes), self.begin)
        heap: list[tuple[float, int, int, _State]] = [(0.0, 0, 0, first)]
        seen: set[_State] = set()
        count = itertools.count(1)
        while heap and len(seen) < STATES:
            cost, loads, _, state = heapq.heappop(heap)
            if state in seen:
                continue
            seen.add(state)
            if all(left == DONE for left in state.left):
                return cost, loads
            for following, more, load in self._after(state):
                if following not in seen:
                    heapq.heappush(heap, (cost + more, loads + load, next(count), following))
        return None

    def _after(self, state: _State) -> Iterator[tuple[_State, float, int]]:
        yield from ((s, c, 0) for s, c in self._let_in(state))
        if state.switch_s or any(state.running):
            return
        later = {m for i, lane in enumerate(self.lanes) for m, _, _ in lane[state.steps[i] :]}
        for model in sorted(later - {state.resident}):
            moved = _State(model, self.models[model].switch_s + TICK, state.steps, state.running, state.left)
            yield *self._pass(moved), 1

    def _let_in(self, state: _State) -> Iterator[tuple[_State, float]]:
        mine = []
        if not state.switch_s:
            mine = [i for i, t in enumerate(state.left) if t == WAITS and self._step(state, i)[0] == state.resident]
        free = self.models[state.resident].slots - sum(state.running) if state.resident else 0
        sizes: list[int] = list(range(len(mine) + 1)) if len(mine) <= SUBSETS else [0, len(mine)]
        self.exact &= len(mine) <= SUBSETS
        if free < len(mine):
            sizes = [n for n in range(free + 1) if n <= len(mine)]
        for size in sizes:
            for chosen in itertools.combinations(mine, size):
                running, left = list(state.running), list(state.left)
                for lane in chosen:
                    running[lane], left[lane] = True, self._step(state, lane)[1]
                moved = _State(state.resident, state.switch_s, state.steps, tuple(running), tuple(left))
                if state.switch_s or any(t >= 0 for t in left):
                    yield self._pass(moved)

    def _step(self, state: _State, lane: int) -> tuple[str, float, float]:
        return self.lanes[lane][state.steps[lane]]

    def _pass(self, state: _State) -> tuple[_State, float]:
        """Let time pass until the next event; what that costs in waiter-seconds."""
        times = [t for t in state.left if t >= 0] + ([state.switch_s] if state.switch_s else [])
        dt = min(times)
        steps, running, left = list(state.steps), list(state.running), list(state.left)
        for lane, t in enumerate(state.left):
            if t < 0:
                continue
            rest = round(t - dt, 6)
            if rest > TICK:
                left[lane] = rest
            elif running[lane]:
                think = self.lanes[lane][steps[lane]][2]
                steps[lane], running[lane] = steps[lane] + 1, False
                left[lane] = DONE if steps[lane] == len(self.lanes[lane]) else think or WAITS
            else:
                left[lane] = WAITS
        switch = round(state.switch_s - dt, 6)
        following = _State(state.resident, switch if switch > TICK else 0.0, tuple(steps), tuple(running), tuple(left))
        return following, dt * sum(t == WAITS for t in state.left)


def bounds(workload: Workload) -> tuple[float, float]:
    """Proven lower bounds: waiter-seconds in all, and the makespan in seconds."""
    asked: dict[str, list[float]] = {}
    shortest: dict[str, float] = {}
    work: dict[str, float] = {}
    end = 0.0
    for agent in workload.agents:
        mine: dict[str, float] = {}
        for number, step in enumerate(agent.steps):
            shortest[step.model] = min(step.service_s, shortest.get(step.model, step.service_s))
            mine[step.model] = mine.get(step.model, 0.0) + step.service_s
            if number == 0:
                asked.setdefault(step.model, []).append(agent.start_s)
        for model, seconds in mine.items():
            work[model] = max(seconds, work.get(model, 0.0))
    for arrival in workload.arrivals:
        shortest[arrival.model] = min(arrival.service_s, shortest.get(arrival.model, arrival.service_s))
        work[arrival.model] = max(arrival.service_s, work.get(arrival.model, 0.0))
        asked.setdefault(arrival.model, []).append(arrival.t)
        end = max(end, arrival.t + arrival.service_s)
    best = min(_in_order(order, asked, shortest, workload) for order in itertools.permutations(sorted(shortest)))
    return best, max(end, sum(workload.models[m].switch_s + seconds for m, seconds in work.items()))


def _in_order(
    order: tuple[str, ...], asked: dict[str, list[float]], shortest: dict[str, float], workload: Workload
) -> float:
    clock = waited = 0.0
    for model in order:
        clock += workload.models[model].switch_s
        waited += sum(max(0.0, clock - t) for t in asked.get(model, ()))
        clock += shortest[model]
    return waited


def optimum(workload: Workload) -> Optimum:
    """The best that is possible on ``workload``; nobody is refused, nobody leaves."""
    waited, makespan = bounds(workload)
    requests = max(1, workload.requests)
    patient = all(s.leaves_after_s is None for a in workload.agents for s in a.steps)
    patient = patient and all(a.leaves_after_s is None for a in workload.arrivals) and workload.until_s is None
    if not patient:
        return Optimum("lower bound", 0.0, 0.0, None)
    search = _Search(workload)
    found = search.run() if requests <= STATES else None
    if found is not None and search.exact:
        return Optimum("exact", found[0] / requests, makespan, found[1])
    return Optimum("lower bound", waited / requests, makespan, None)
