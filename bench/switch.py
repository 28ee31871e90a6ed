"""Our own share of a switch: what passes beside what the engines themselves need for it.

Three kinds in one run: *stopped*, one engine is stopped and the other started; *warm*, one is put to sleep and the
other woken; *cold*, the first start of an engine that makes room for nobody. The engine does nothing but wait. What
it needs is measured beside each switch, by hand and without Roundhouse. Our share is the time from the end of the
last answer of one model to the grant for the other, less that: drain seen, orders, checks, readiness, grant.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from roundhouse.bench.stack import free_port, litellm_config, machine, model, stack
from roundhouse.residency.client.http import http_client
from roundhouse.residency.client.leases import LeaseClient

ENGINE = Path(__file__).with_name("engine.py")
START_S, SLEEP_S, WAKE_S = 0.5, 0.1, 0.3
"""What the engine waits: long against our share, short for whoever waits for the result. A wake of 0.3 s is that of a
small model on a card."""

DELAYS = ["--start-delay", str(START_S), "--sleep-delay", str(SLEEP_S), "--wake-delay", str(WAKE_S)]

ENTRY = """import runpy, sys
sys.argv = [{engine!r}, *sys.argv[1:], *{delays!r}]
runpy.run_path({engine!r}, run_name="__main__")
"""
"""The server module of a vLLM that is our engine: the real launcher starts it, puts it to sleep and wakes it."""

Report = Callable[[str], None]


def make_environment(folder: Path) -> Path:
    """An engine environment in ``folder`` whose vLLM is the engine that only waits; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    package = site / "vllm" / "entrypoints" / "launchers" / "api_server"
    package.mkdir(parents=True)
    (package / "entry.py").write_text(ENTRY.format(engine=str(ENGINE), delays=DELAYS), encoding="utf-8")
    return folder / "bin" / "python"


class Bare:
    """The engine by hand."""

    def __init__(self) -> None:
        self._port = free_port()

    def start(self) -> subprocess.Popen[bytes]:
        """An engine that answers."""
        engine = subprocess.Popen([sys.executable, str(ENGINE), "--port", str(self._port), *DELAYS])
        while True:
            try:
                self._call("GET", "/health")
                return engine
            except OSError:
                time.sleep(0.0005)  # finer than what is measured

    def _call(self, method: str, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request(method, path)
        connection.getresponse().read()
        connection.close()

    def stopped_ms(self) -> float:
        """Milliseconds to start the engine until it answers, and to stop it until it is gone."""
        began = time.perf_counter()
        engine = self.start()
        engine.send_signal(signal.SIGTERM)
        engine.wait()
        return (time.perf_counter() - began) * 1e3

    def warm_ms(self) -> float:
        """Milliseconds to put the engine to sleep and to wake it."""
        engine = self.start()
        began = time.perf_counter()
        self._call("POST", "/sleep?level=1&mode=wait")
        self._call("POST", "/wake_up")
        took = (time.perf_counter() - began) * 1e3
        engine.send_signal(signal.SIGTERM)
        engine.wait()
        return took


async def switches_ms(
    socket: Path, rounds: int, bare_ms: Callable[[], float], report: Report
) -> tuple[float, list[float], list[float]]:
    """Milliseconds of a first start, of ``rounds`` switches, and of as many times what the engine alone needs."""
    switch, bare = [], []
    async with http_client(socket, timeout=60) as api:
        resident, other = "one", "two"
        await api.get("/status")  # residency itself is there
        began = time.perf_counter()
        await api.post("/switch", json={"model": resident})
        cold = (time.perf_counter() - began) * 1e3
        for model_name in (other, resident):  # neither is asleep for the first time in what is measured
            await api.post("/switch", json={"model": model_name})
        for index in range(rounds):
            leases = LeaseClient(socket)
            lease = await leases.acquire(resident)
            async with api.stream("POST", "/lease", json={"model": other}) as response:
                lines = response.aiter_lines()
                await anext(lines)  # queued: it waits for the lease
                began = time.perf_counter()
                lease.release()
                async for line in lines:
                    if json.loads(line)["event"] == "granted":
                        break
                switch.append((time.perf_counter() - began) * 1e3)
            await leases.aclose()
            resident, other = other, resident
            bare.append(await asyncio.to_thread(bare_ms))
            report(f"switch {index + 1} of {rounds}: {switch[-1]:.0f} ms, the engine alone {bare[-1]:.0f} ms")
    return cold, switch, bare


def _stopped_models() -> list[dict[str, Any]]:
    def one(name: str) -> dict[str, Any]:
        port = free_port()
        return model(
            name, {"kind": "command", "port": port, "argv": [sys.executable, str(ENGINE), "--port", str(port), *DELAYS]}
        )

    return [one("one"), one("two")]


def _warm_models(folder: Path) -> list[dict[str, Any]]:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    spec = {"kind": "vllm", "model": str(folder), "sleep": 1, "memory": "1GiB", "host": "off"}
    return [model(name, spec | {"port": free_port()}) for name in ("one", "two")]


def _figures(switch: list[float], bare: list[float]) -> dict[str, Any]:
    own = [s - b for s, b in zip(switch, bare, strict=True)]
    return {
        "own_share_ms": {"median": round(median(own), 1), "p95": round(quantiles(own, n=20)[-1], 1)},
        "switch_ms": {"median": round(median(switch), 1)},
        "engine_ms": {"median": round(median(bare), 1)},
    }


def run(rounds: int = 20, report: Report = lambda _: None) -> dict[str, Any]:
    """Measure; the figures of ``bench switch --json`` (milliseconds). The outer ones are of stopped engines."""
    bare = Bare()
    with tempfile.TemporaryDirectory(prefix="rh-bench-engine-") as name:
        folder = Path(name)
        python = make_environment(folder / "env")
        stopped = _measure("stopped", _stopped_models(), bare.stopped_ms, rounds, report, python)
        warm = _measure("warm", _warm_models(folder), bare.warm_ms, rounds, report, python)
    return {**stopped, "warm": warm, "rounds": rounds, "machine": machine()}


def _measure(
    kind: str,
    models: list[dict[str, Any]],
    bare_ms: Callable[[], float],
    rounds: int,
    report: Report,
    python: Path,
) -> dict[str, Any]:
    config = litellm_config(models, gate=True, max_wait_s=60)
    with stack(config, ("residency",), ROUNDHOUSE_ENGINE_PYTHON=str(python)) as it:
        socket = it.home / "run" / "residency.sock"
        cold, switch, alone = asyncio.run(switches_ms(socket, rounds, bare_ms, lambda text: report(f"{kind} {text}")))
    return _figures(switch, alone) | {"cold_ms": round(cold, 1)}
