"""Prometheus metrics, read from the public status at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

COUNTERS = {
    "switches": "Times another model was brought onto a device.",
    "starts": "Engines started.",
    "stops": "Engines stopped.",
    "sleeps": "Engines put to sleep.",
    "wakes": "Engines woken.",
    "granted": "Requests let through to an engine.",
    "refused": "Requests refused.",
    "gone_waiting": "Requests whose client left while waiting.",
    "failures": "Engine starts that failed.",
    "sleep_failures": "Sleeps and wakes that failed, or whose check did.",
    "crashes": "Engines that ended by themselves.",
    "forced_drains": "Drains that ran into their deadline.",
    "backstop_releases": "Leases that only the end of the exchange gave back.",
}


class Collector:
    """Turns ``status()`` into metric families named ``roundhouse_*``."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """One family per counter of the machine, one gauge per figure of a model."""
        status = self._status()
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"roundhouse_{name}", text, value=status["counters"][name])
        state = GaugeMetricFamily("roundhouse_model_state", "1 for the state a model is in.", labels=["model", "state"])
        leases = GaugeMetricFamily("roundhouse_model_leases", "Requests being answered.", labels=["model"])
        waiting = GaugeMetricFamily("roundhouse_model_waiting", "Requests waiting for the model.", labels=["model"])
        oldest = GaugeMetricFamily("roundhouse_model_oldest_wait_seconds", "Longest present wait.", labels=["model"])
        start = GaugeMetricFamily("roundhouse_model_start_seconds", "Measured time to start.", labels=["model"])
        for model, figures in status["models"].items():
            state.add_metric([model, figures["state"]], 1)
            leases.add_metric([model], figures["leases"])
            waiting.add_metric([model], figures["waiting"])
            oldest.add_metric([model], figures["oldest_wait_s"] or 0)
            if figures["measured"]["start_s"] is not None:
                start.add_metric([model], figures["measured"]["start_s"])
        wake = GaugeMetricFamily("roundhouse_model_wake_seconds", "Measured time to wake.", labels=["model"])
        memory = GaugeMetricFamily(
            "roundhouse_model_memory_bytes", "What the model has of its device.", labels=["model", "kind"]
        )
        for model, figures in status["models"].items():
            if figures["measured"]["wake_s"] is not None:
                wake.add_metric([model], figures["measured"]["wake_s"])
            for kind in ("awake", "residual", "pinned") if figures["memory"] else ():
                memory.add_metric([model, kind], figures["memory"][kind])
        others = GaugeMetricFamily(
            "roundhouse_device_others_bytes", "What other programs have of a device.", labels=["device"]
        )
        for device in status["devices"]:
            others.add_metric([device["id"]], device["memory"]["others"])
        decisions = CounterMetricFamily(
            "roundhouse_decisions", "How often a resident was kept or left, and why.", labels=["device", "kind"]
        )
        for device in status["devices"]:
            for kind, count in device["decisions"].items():
                decisions.add_metric([device["id"], kind], count)
        yield from (decisions, state, leases, waiting, oldest, start, wake, memory, others)
