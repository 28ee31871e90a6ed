"""A journal of residency as workloads, one for each device: a real day, to be played again under other policies.

A caller's next request follows on the answer to its last one, so it becomes an agent: had the answer come earlier, so
would the next request. Requests of one caller that overlap become several agents; after a pause of AWAY_S a new one
begins at its own time, as a person comes back after lunch whatever the answers did. Requests without a caller come when
they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from roundhouse.bench.policies.ours import WEIGHTS
from roundhouse.bench.workload import Workload, WorkloadError, parse

AWAY_S = 600.0
"""A longer pause than this is not a reaction to the last answer."""

UNKNOWN_SWITCH_S = 10.0
"""A switch to a model that the journal never saw coming."""

Document = dict[str, Any]


@dataclass
class _Request:
    asked: float
    model: str
    caller: str
    priority: int
    granted: float | None = None
    ended: float | None = None
    refused: bool = False


@dataclass
class _Day:
    """What the lines say. Times are seconds since the epoch."""

    requests: list[_Request] = field(default_factory=list)
    models: dict[str, Document] = field(default_factory=dict)
    max_wait_s: float = 300.0
    coming: dict[str, list[float]] = field(default_factory=dict)  # durations
    leaving: list[float] = field(default_factory=list)
    _open: dict[int, _Request] = field(default_factory=dict)
    _since: dict[tuple[str, str], float] = field(default_factory=dict)
    _offset: float = 0.0

    def read(self, line: Document) -> None:
        """Take in one line. Raises KeyError, TypeError or ValueError if it is none of a journal."""
        what, at = line["what"], float(line["t"]) + self._offset
        if what == "opened":  # another process: its tickets start anew, and its clock does, too
            self._open.clear()
            self._since.clear()
            self.models |= line["models"]
            self.max_wait_s = float(line["max_wait_s"])
            self._offset = float(line["clock"]) - float(line["t"])
        elif what == "asked":
            priority = {weight: number for number, weight in WEIGHTS.items()}.get(float(line["weight"]), 0)
            request = _Request(at, line["model"], line["caller"], priority)
            self._open[line["ticket"]] = request
            self.requests.append(request)
        elif what == "granted":
            if line["ticket"] in self._open:  # else it was a command
                self._open[line["ticket"]].granted = at
        elif what in ("gone", "refused"):
            if line["ticket"] in self._open:
                request = self._open.pop(line["ticket"])
                request.ended, request.refused = at, what == "refused"
        elif what in ("coming", "leaving"):
            self._since[what, line["model"]] = at
        elif what == "ready":
            since = self._since.pop(("coming", line["model"]), None)
            if since is not None:
                self.coming.setdefault(line["model"], []).append(at - since)
        elif what == "left":
            since = self._since.pop(("leaving", line["model"]), None)
            if since is not None:
                self.leaving.append(at - since)
        else:
            raise ValueError(f"{what!r} is nothing that happens")


def workloads(path: Path) -> list[Workload]:
    """The workloads of the journal at ``path``, one for each device on which anything was asked.

    Raises:
        WorkloadError: it cannot be read; one line with the file and the line.
    """
    day = _Day()
    for number, text in enumerate(_lines(path), 1):
        try:
            day.read(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkloadError(f"{path}:{number}: not a line of a journal: {type(error).__name__}: {error}") from error
    devices = dict.fromkeys(day.models[r.model]["device"] for r in day.requests if r.model in day.models)
    if not devices:
        raise WorkloadError(f"{path}: there is no request in this journal")
    return [_workload(day, device, path) for device in devices]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    lines = text.splitlines()
    return lines if text.endswith("\n") or not lines else lines[:-1]  # the last one was being written


def _workload(day: _Day, device: str, path: Path) -> Workload:
    here = {name: it for name, it in day.models.items() if it["device"] == device}
    requests = [r for r in day.requests if r.model in here]
    begin = requests[0].asked
    known = [seconds for several in day.coming.values() for seconds in several]
    usual, leave = mean(known or [UNKNOWN_SWITCH_S]), mean(day.leaving or [0.0])
    models: dict[str, Document] = {}
    for name, it in here.items():
        models[name] = {"switch_s": round(mean(day.coming.get(name) or [usual]) + leave, 3)}
        if it["slots"]:
            models[name]["slots"] = it["slots"]
    lanes: dict[tuple[str, int], list[list[_Request]]] = {}
    arrivals = []
    usual_s = {name: _mean_service(requests, name) for name in here}
    for request in requests:
        if not request.caller:
            when = {"t": round(request.asked - begin, 4), "priority": request.priority}
            arrivals.append(when | _step(request, usual_s))
            continue
        mine = lanes.setdefault((request.caller, request.priority), [])
        lane = next((one for one in mine if _follows(one[-1], request)), None)
        if lane is None:
            mine.append([request])
        else:
            lane.append(request)
    agents = [_agent(c, p, lane, begin, usual_s) for (c, p), several in lanes.items() for lane in several]
    document = {"about": "a journal", "models": models, "agents": agents, "arrivals": arrivals}
    name = path.stem if len({it["device"] for it in day.models.values()}) == 1 else f"{path.stem} {device}"
    return parse(document | {"max_wait_s": day.max_wait_s or None}, name, str(path))


def _follows(before: _Request, request: _Request) -> bool:
    return before.ended is not None and 0 <= request.asked - before.ended <= AWAY_S


def _service(request: _Request) -> float | None:
    if request.granted is None or request.ended is None:
        return None
    return max(0.0, request.ended - request.granted)


def _mean_service(requests: Iterable[_Request], model: str) -> float:
    return mean([s for r in requests if r.model == model and (s := _service(r)) is not None] or [0.0])


def _step(request: _Request, usual_s: dict[str, float]) -> Document:
    """Who was refused, or left unserved, would have been answered for as long as others were."""
    service = _service(request)
    step = {"model": request.model, "service_s": round(usual_s[request.model] if service is None else service, 4)}
    if service is None and request.ended is not None and not request.refused:
        step["leaves_after_s"] = round(max(0.0, request.ended - request.asked), 4)
    return step


def _agent(caller: str, priority: int, lane: list[_Request], begin: float, usual_s: dict[str, float]) -> Document:
    steps = [_step(request, usual_s) for request in lane]
    for step, request, following in zip(steps, lane, lane[1:], strict=False):
        step["think_s"] = round(following.asked - (request.ended or following.asked), 4)
    return {"caller": caller, "start_s": round(lane[0].asked - begin, 4), "priority": priority, "steps": steps}
