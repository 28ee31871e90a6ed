"""Our own share of a switch: what passes beside the engine's own stop and start.

An engine that does nothing but wait is stopped and started by hand (the baseline) and by residency, in
turn. Our share is the time from the end of the last answer of one model to the grant for the other,
less the bare stop and start: drain seen, stop, start, readiness noticed, grant.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from roundhouse.bench.stack import free_port, litellm_config, machine, model, stack
from roundhouse.residency import client

ENGINE = Path(__file__).with_name("engine.py")
START_DELAY_S = 0.5
"""What the engine waits before it answers: long against our share, short for whoever waits for the result."""


def bare_ms(port: int) -> float:
    """Milliseconds to start and stop the engine by hand: until it answers, and until it is gone."""
    began = time.perf_counter()
    engine = subprocess.Popen([sys.executable, str(ENGINE), "--port", str(port), "--start-delay", str(START_DELAY_S)])
    while True:
        try:
            probe = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            probe.request("GET", "/health")
            probe.getresponse().read()
            break
        except OSError:
            time.sleep(0.0005)  # finer than what is measured
    probe.close()
    engine.send_signal(signal.SIGTERM)
    engine.wait()
    return (time.perf_counter() - began) * 1e3


async def switches_ms(
    socket: Path, rounds: int, port: int, report: Callable[[str], None]
) -> tuple[list[float], list[float]]:
    """Alternate a switch and a bare stop and start ``rounds`` times; milliseconds of each."""
    switch, bare = [], []
    async with client.http(socket, timeout=60) as api:
        resident, other = "one", "two"
        await api.post("/switch", json={"model": resident})
        for index in range(rounds):
            leases = client.LeaseClient(socket)
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
            bare.append(await asyncio.to_thread(bare_ms, port))
            report(f"switch {index + 1} of {rounds}: {switch[-1]:.0f} ms, the engine alone {bare[-1]:.0f} ms")
    return switch, bare


def run(rounds: int = 20, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure; the figures of ``bench switch --json`` (milliseconds)."""
    models = [
        model(
            name,
            {
                "kind": "command",
                "port": (port := free_port()),
                "argv": [
                    sys.executable,
                    str(ENGINE),
                    "--port",
                    str(port),
                    "--start-delay",
                    str(START_DELAY_S),
                ],
            },
        )
        for name in ("one", "two")
    ]
    with stack(litellm_config(models, gate=True, max_wait_s=60), ("residency",)) as it:
        switch, bare = asyncio.run(switches_ms(it.home / "run" / "residency.sock", rounds, free_port(), report))
    own = [s - b for s, b in zip(switch, bare, strict=True)]
    return {
        "own_share_ms": {"median": round(median(own), 1), "p95": round(quantiles(own, n=20)[-1], 1)},
        "switch_ms": {"median": round(median(switch), 1)},
        "engine_ms": {"median": round(median(bare), 1)},
        "rounds": rounds,
        "machine": machine(),
    }
