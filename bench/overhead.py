"""What Roundhouse adds to LiteLLM: the same resident engine through both, in turn, in one run.

Latency and streamed tokens with a real tiny engine; processor time (LiteLLM's worker and residency
together) with a trivial one, and how much each carries beside that engine itself. Both gateways have the settings of
the YAML that is shipped, and share one Redis.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx

from roundhouse.bench import throughput
from roundhouse.bench.load import Target
from roundhouse.bench.stack import Stack, free_port, litellm_config, machine, model, stack, tiny_model

ENGINE = Path(__file__).with_name("engine.py")
PAIRS = 150
"""Requests through each gateway for the latency; enough for a median that moves by a percent."""

CPU_ROUNDS, CPU_REQUESTS, CPU_AT_ONCE = 8, 200, 8
STREAMS, STREAM_TOKENS = 12, 200
WARM_UP = 30

PLAIN = (
    "import os, uvicorn;"
    "from litellm.proxy.proxy_server import app;"
    "uvicorn.run(app, host='127.0.0.1', port=int(os.environ['PLAIN_PORT']), http='httptools', loop='uvloop',"
    " access_log=False, log_level='error')"
)
"""LiteLLM as it is, served the way Roundhouse serves it."""

Ask = Callable[[httpx.AsyncClient, int], Awaitable[float]]


class Gateway:
    """One of the two: a client for it, and the services whose processor time counts."""

    def __init__(self, it: Stack, port: int, services: tuple[str, ...]) -> None:
        self.services = services
        self.stack = it
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/v1", headers={"authorization": f"Bearer {it.key}"}, timeout=120
        )

    def cpu_s(self) -> float:
        """Processor seconds of its services so far."""
        return self.stack.cpu_s(*self.services)


def _question(name: str, serial: int, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"Question {time.time_ns()} {serial}"}  # never seen: never cached
    return {"model": name, "messages": [message], "temperature": 0, **more}


async def ask(gateway: Gateway, name: str, serial: int, tokens: int = 8) -> float:
    """One answer; its milliseconds."""
    began = time.perf_counter()
    body = _question(name, serial, max_tokens=tokens)
    response = await gateway.client.post("/chat/completions", json=body)
    response.raise_for_status()
    return (time.perf_counter() - began) * 1e3


async def stream_rate(gateway: Gateway, name: str, serial: int) -> float:
    """One streamed answer; its tokens a second, from the first to the last."""
    body = _question(name, serial, max_tokens=STREAM_TOKENS, stream=True, ignore_eos=True)
    times: list[float] = []
    async with gateway.client.stream("POST", "/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    return (len(times) - 1) / (times[-1] - times[0])


async def cpu_ms(gateway: Gateway, name: str) -> float:
    """Processor milliseconds of the gateway for one request of a busy block."""
    before = gateway.cpu_s()
    for start in range(0, CPU_REQUESTS, CPU_AT_ONCE):
        await asyncio.gather(*(ask(gateway, name, start + i) for i in range(CPU_AT_ONCE)))
    return (gateway.cpu_s() - before) / CPU_REQUESTS * 1e3


async def measure(plain: Gateway, ours: Gateway, report: Callable[[str], None]) -> dict[str, Any]:
    """What a request costs; the two gateways in turn, each first every other time."""
    both = (plain, ours)
    for serial in range(WARM_UP):
        for gateway in both:
            await ask(gateway, "real", serial)
            await ask(gateway, "trivial", serial)
    p50: dict[Gateway, list[float]] = {g: [] for g in both}
    cpu: dict[Gateway, list[float]] = {g: [] for g in both}
    rate: dict[Gateway, list[float]] = {g: [] for g in both}
    report(f"latency: {PAIRS} pairs of requests to a real engine")
    for serial in range(PAIRS):
        for gateway in both if serial % 2 else both[::-1]:
            p50[gateway].append(await ask(gateway, "real", serial))
    report(f"processor time: {CPU_ROUNDS} pairs of blocks of {CPU_REQUESTS} requests to a trivial engine")
    for index in range(CPU_ROUNDS):
        for gateway in both if index % 2 else both[::-1]:
            cpu[gateway].append(await cpu_ms(gateway, "trivial"))
    report(f"streams: {STREAMS} pairs of {STREAM_TOKENS} tokens from a real engine")
    for index in range(STREAMS):
        for gateway in both if index % 2 else both[::-1]:
            rate[gateway].append(await stream_rate(gateway, "real", index))
    return {
        "p50_ratio": round(median(p50[ours]) / median(p50[plain]), 3),
        "cpu_ratio": round(median(cpu[ours]) / median(cpu[plain]), 3),
        "tokens_per_s_ratio": round(median(rate[ours]) / median(rate[plain]), 3),
        "p50_ms": {"plain": round(median(p50[plain]), 2), "roundhouse": round(median(p50[ours]), 2)},
        "cpu_ms": {"plain": round(median(cpu[plain]), 2), "roundhouse": round(median(cpu[ours]), 2)},
        "tokens_per_s": {"plain": round(median(rate[plain])), "roundhouse": round(median(rate[ours]))},
    }


def _models(engine_args: list[str], weights: str) -> list[dict[str, Any]]:
    trivial = free_port()
    argv = [sys.executable, str(ENGINE), "--port", str(trivial)]
    return [
        model("trivial", {"kind": "command", "port": trivial, "argv": argv, "device": "cpu0"}),
        model(
            "real",
            {"kind": "vllm", "port": free_port(), "model": weights, "args": engine_args, "device": "cpu1"},
        ),
    ]


ENGINE_ARGS = ["--dtype=bfloat16", "--max-model-len=4096", "--enforce-eager", "--kv-cache-memory-bytes=64M"]


def run(report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Start both gateways and the engines, measure, end everything; the figures of ``bench overhead --json``.

    Raises:
        RuntimeError: a service did not come up.
    """
    weights = tiny_model("chat", report)
    models = _models(ENGINE_ARGS, str(weights))
    config = litellm_config(models, gate=True, devices=[{"id": "cpu0"}, {"id": "cpu1"}])
    report("starting Roundhouse, plain LiteLLM and the engines")
    with stack(config, ("redis", "residency", "proxy")) as it:
        return asyncio.run(_run(it, models, report))


async def _run(it: Stack, models: list[dict[str, Any]], report: Callable[[str], None]) -> dict[str, Any]:
    port = free_port()
    for entry in models:
        entry["model_info"].pop("launcher")
    plain_config = it.home / "plain.yaml"
    plain_config.write_text(json.dumps(litellm_config(models, gate=False)))
    it.spawn(
        "plain",
        "-c",
        PLAIN,
        PLAIN_PORT=str(port),
        CONFIG_FILE_PATH=str(plain_config),
        REDIS_URL=f"unix://:{it.env['REDIS_PASSWORD']}@{it.home}/run/redis.sock",
        LITELLM_LOG="ERROR",
    )
    await asyncio.to_thread(it.wait, "plain", f"http://127.0.0.1:{port}/health/liveliness")
    plain, ours = Gateway(it, port, ("plain",)), Gateway(it, it.port, ("proxy", "residency"))
    for name in ("trivial", "real"):
        report(f"bringing up the {name} engine")
        await ask(ours, name, 0)
    figures = await measure(plain, ours, report)
    targets = {
        "engine": Target(urlsplit(models[0]["litellm_params"]["api_base"]).port or 0, it.key, "trivial"),
        "plain": Target(port, it.key, "trivial"),
        "roundhouse": Target(it.port, it.key, "trivial"),
    }
    carried = await throughput.measure(targets, report)
    return {**figures, **carried, "machine": machine()}
