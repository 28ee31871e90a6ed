"""A cold engine's way to its first answer: started the stock way and forked from the engine host, in turn.

Both ways use the launchers that residency uses, with the configured models, on ports of their own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from roundhouse.bench.stack import free_port, machine
from roundhouse.config import paths
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.base import LaunchError
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.process.records import session
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.launcher import build_host
from roundhouse.launchers.vllm.weights import WeightsError, prepare

HOST_S = 300.0
"""How long the host may take: the first time, vLLM inspects every model's architecture in a process of its own."""

Report = Callable[[str], None]
MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One start: seconds to healthy and to the first answer, bytes of memory, and the answer."""

    healthy_s: float
    answer_s: float
    pss: int
    uss: int
    rss: int
    text: str


async def first_answer(entry: ModelEntry, client: httpx.AsyncClient) -> str:
    """Ask for one token, or for an embedding where the model makes those."""
    base = f"http://127.0.0.1:{entry.launcher.port}/v1"
    ask = {"model": entry.served_name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    response = await client.post(f"{base}/chat/completions", json={**ask, "temperature": 0})
    if response.status_code == 404:  # it does not generate
        response = await client.post(f"{base}/embeddings", json={"model": entry.served_name, "input": "Hello"})
        response.raise_for_status()
        return str(response.json()["data"][0]["embedding"])
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


async def one_start(entry: ModelEntry, host: EngineHost | None, client: httpx.AsyncClient) -> Sample:
    """Start the model's engine, ask it once, look at its memory, stop it. Raises LaunchError."""
    launcher = build_launcher(entry, host)
    began = time.perf_counter()
    engine = await launcher.start(lambda progress: None)
    healthy = time.perf_counter() - began
    try:
        if host is not None and psutil.Process(engine.pid).ppid() != host.pid:
            raise LaunchError(entry.name, f"model {entry.name!r} was not forked from the host; see its log")
        text = await first_answer(entry, client)
        answered = time.perf_counter() - began
        assert isinstance(engine, Child)
        members = session(engine.pid, Birth.of(engine.pid))
        memory = [process.memory_full_info() for process in members]
        sums = {name: sum(getattr(it, name) for it in memory) for name in ("pss", "uss", "rss")}
        return Sample(healthy, answered, text=text, **sums)
    finally:
        await engine.stop()


async def _pairs(entries: list[ModelEntry], pairs: int, report: Report) -> dict[str, Any]:
    host = build_host(entries)
    if host is None:
        raise RuntimeError("no model of the configuration may be forked from the engine host")
    keeping = asyncio.create_task(host.run())
    headers = {"authorization": f"Bearer {os.environ['ROUNDHOUSE_ENGINE_KEY']}"}
    models: dict[str, Any] = {}
    try:
        report("the engine host imports vLLM")
        await _ready(host)
        async with httpx.AsyncClient(headers=headers, timeout=300, trust_env=False) as client:
            for entry in entries:
                models[entry.name] = await _model(entry, host, client, pairs, report)
        return {"models": models, "host_bytes": host.status()["unique_bytes"], "machine": machine()}
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _ready(host: EngineHost) -> None:
    async with asyncio.timeout(HOST_S):
        while host.state != "ready":
            if host.state == "unsupported":
                raise RuntimeError(f"there can be no engine host here; see {paths.log_dir() / 'vllm-host.log'}")
            await asyncio.sleep(0.1)


async def _model(
    entry: ModelEntry, host: EngineHost, client: httpx.AsyncClient, pairs: int, report: Report
) -> dict[str, Any]:
    samples: dict[str, list[Sample]] = {"stock": [], "host": []}
    ways: dict[str, Callable[[], Awaitable[Sample]]] = {
        "stock": lambda: one_start(entry, None, client),
        "host": lambda: one_start(entry, host, client),
    }
    for number in range(pairs):
        for way, start in ways.items():
            samples[way].append(await start())
        stock, forked = samples["stock"][-1], samples["host"][-1]
        report(f"{entry.name} {number + 1} of {pairs}: stock {stock.answer_s:.1f} s, host {forked.answer_s:.2f} s")
    own = psutil.Process(host.pid).memory_full_info()
    figures: dict[str, Any] = {}
    for way, taken in samples.items():
        figures[f"{way}_s"] = [round(it.answer_s, 3) for it in taken]
        figures[f"{way}_healthy_s"] = [round(it.healthy_s, 3) for it in taken]
        figures[f"{way}_mib"] = {n: round(median(getattr(i, n) for i in taken) / MIB) for n in ("pss", "uss", "rss")}
    ratios = [forked.answer_s / stock.answer_s for stock, forked in zip(*samples.values(), strict=True)]
    figures["ratio_median"] = round(median(ratios), 4)
    figures["with_host_uss_ratio"] = round(
        (own.uss + median(i.uss for i in samples["host"])) / median(i.uss for i in samples["stock"]), 2
    )
    figures["same_answers"] = len({it.text for taken in samples.values() for it in taken}) == 1
    return figures


@contextmanager
def _home() -> Iterator[None]:
    """A home of our own with the models and caches of the usual one, so that a running stack is left alone."""
    usual, before = paths.home(), {name: os.environ.get(name) for name in ("ROUNDHOUSE_HOME", "ROUNDHOUSE_ENGINE_KEY")}
    with tempfile.TemporaryDirectory(prefix="rh-bench-") as folder:
        for name in ("models", "cache"):
            (usual / name).mkdir(exist_ok=True)
            (Path(folder) / name).symlink_to(usual / name)
        os.environ |= {"ROUNDHOUSE_HOME": folder, "ROUNDHOUSE_ENGINE_KEY": "sk-bench"}
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _elsewhere(entry: ModelEntry) -> ModelEntry:
    """The model on a free port."""
    port = free_port()
    launcher = entry.launcher.model_copy(update={"port": port})
    return entry.model_copy(update={"launcher": launcher, "api_base": f"http://127.0.0.1:{port}/v1"})


def run(pairs: int, report: Report = lambda _: None) -> dict[str, Any]:
    """Measure ``pairs`` of starts of every configured vLLM model; the figures of ``bench start --json``.

    Raises:
        RuntimeError: there is no host, no engine, or no model to measure.
    """
    if not paths.engine_python().exists():
        raise RuntimeError("no engine environment; './roundhouse up' makes it")
    try:
        settings = load_settings(paths.config_file())
        chosen = prepare(settings, "auto", report)
    except (ConfigError, WeightsError) as error:
        raise RuntimeError(str(error)) from error
    os.environ.setdefault("ROUNDHOUSE_MODELS", chosen.source.value)
    entries = [_elsewhere(it) for it in settings.models.values() if it.launcher.kind == "vllm"]
    with _home(), suppress(KeyboardInterrupt):
        try:
            return asyncio.run(_pairs(entries, pairs, report))
        except (LaunchError, httpx.HTTPError, TimeoutError) as error:
            raise RuntimeError(str(error) or type(error).__name__) from error
    raise RuntimeError("interrupted")
