"""Many short texts made into vectors: Roundhouse and the same engine asked directly, in turn, in one run.

A tiny real embedder, whose own work is next to nothing: what is measured is what the way to it costs, by how many texts
go with each request. No text is asked for twice, so that nothing comes from the cache.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx

from roundhouse.bench.stack import Stack, free_port, litellm_config, machine, model, stack, tiny_model

BATCHES = {1: 400, 16: 1600, 256: 4096, 2048: 8192}
"""Texts a request -> texts a turn: a turn takes some seconds."""

AT_ONCE, TURNS = 8, 3
"""Requests at once; turns of each, in an order that is reversed every other time."""

ARGS = ["--runner=pooling", "--convert=embed", "--dtype=bfloat16", "--max-model-len=512", "--enforce-eager"]
NAME = "embedder"

_serial = itertools.count(time.time_ns())


async def texts_per_s(client: httpx.AsyncClient, batch: int, texts: int) -> float:
    """Texts a second, ``batch`` with each request, AT_ONCE requests at once."""
    left = [batch] * (texts // batch)

    async def lane() -> None:
        while left:
            size = left.pop()
            body = {"model": NAME, "input": [f"Sentence number {next(_serial)}, and not long." for _ in range(size)]}
            response = await client.post("/embeddings", json=body)
            response.raise_for_status()
            if len(response.json()["data"]) != size:
                raise RuntimeError(f"{len(response.json()['data'])} vectors came of {size}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(lane())
    return batch * (texts // batch) / (time.perf_counter() - began)


def run(report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Start the gateway and the engine, measure, end everything; the figures of ``bench embeddings --json``.

    Raises:
        RuntimeError: a service did not come up, or an answer was not whole.
    """
    weights = tiny_model("embedding", report)
    args = [*ARGS, "--kv-cache-memory-bytes=64M"]
    entry = model(NAME, {"kind": "vllm", "port": free_port(), "model": str(weights), "args": args, "device": "cpu0"})
    entry["model_info"]["mode"] = "embedding"
    report("starting Roundhouse and the engine")
    with stack(litellm_config([entry], gate=True, devices=[{"id": "cpu0"}]), ("redis", "residency", "proxy")) as it:
        port = urlsplit(entry["litellm_params"]["api_base"]).port or 0
        return asyncio.run(_measure(it, port, report))


async def _measure(it: Stack, port: int, report: Callable[[str], None]) -> dict[str, Any]:
    async with _client(port, it.env["ROUNDHOUSE_ENGINE_KEY"]) as engine, _client(it.port, it.key) as ours:
        arms = {"engine": engine, "roundhouse": ours}
        await texts_per_s(ours, 1, 8)
        await texts_per_s(engine, 1, 8)
        figures: dict[str, Any] = {}
        for batch, texts in BATCHES.items():
            report(f"{batch} texts a request: {TURNS} turns of {texts} texts")
            seen: dict[str, list[float]] = {name: [] for name in arms}
            for turn in range(TURNS):
                for name in arms if turn % 2 else reversed(arms):
                    seen[name].append(await texts_per_s(arms[name], batch, texts))
            ratios = [mine / own for mine, own in zip(seen["roundhouse"], seen["engine"], strict=True)]
            figures[f"texts_per_s_{batch}"] = {name: round(median(values)) for name, values in seen.items()}
            figures[f"texts_per_s_{batch}_ratio"] = round(median(ratios), 3)
            figures[f"s_for_10000_texts_{batch}"] = round(10_000 / median(seen["roundhouse"]), 1)
    return {**figures, "machine": machine()}


def _client(port: int, key: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", headers=headers, timeout=300, trust_env=False)
