"""vLLM's sleep endpoints for real, memory aside: on the CPU a sleep frees nothing, and all else is as on a card."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from roundhouse.config.load import load_settings
from roundhouse.config.schema import ModelEntry, Settings
from roundhouse.launchers.base import Progress
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm import sleeping, weights
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.launcher import build_host
from roundhouse.launchers.vllm.sleeping import SleepEndpoints
from tests.acceptance.conftest import cpu_config
from tests.support.waiting import until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

KEY = "key-of-the-engines"
HOST_S = 180.0
TEXT = "Once upon a time there was a roundhouse"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A text model and an embedding one, in a home of their own; each may sleep at both levels."""
    home = tmp_path_factory.mktemp("sleep")
    (home / "config.yaml").write_text(cpu_config(only=("qwen-0.5b", "bge-small")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_HOME", str(home))
        patch.setenv("ROUNDHOUSE_ENGINE_KEY", KEY)
        it = load_settings(home / "config.yaml")
        weights.prepare(it, "tiny", print)
        yield it


def may_sleep(settings: Settings, name: str, host: str) -> ModelEntry:
    """A model as the file has it, but that it sleeps: on the CPU that is off unless asked for."""
    entry = settings.models[name]
    return entry.model_copy(update={"launcher": entry.launcher.model_copy(update={"sleep": 1, "host": host})})


@asynccontextmanager
async def started(entry: ModelEntry, host: EngineHost | None = None) -> AsyncIterator[Child]:
    def ignore(progress: Progress) -> None:
        """Nobody looks."""

    engine = await build_launcher(entry, host).start(ignore)
    assert isinstance(engine, Child)
    try:
        yield engine
    finally:
        await engine.stop()


class Storm:
    """A request that arrives whenever the engine is told anything, and what became of each."""

    def __init__(self, entry: ModelEntry, patch: pytest.MonkeyPatch) -> None:
        self._entry = entry
        self._asked: list[asyncio.Task[httpx.Response]] = []
        self.steps: list[str] = []
        plain = SleepEndpoints._client

        def watched(endpoints: SleepEndpoints) -> httpx.AsyncClient:
            client = plain(endpoints)
            client.event_hooks = {"request": [self._arrive]}
            return client

        patch.setattr(SleepEndpoints, "_client", watched)

    async def _arrive(self, request: httpx.Request) -> None:
        self.steps.append(request.url.raw_path.decode())
        self._asked.append(asyncio.create_task(ask(self._entry)))
        await asyncio.sleep(0)  # it is on its way before the step is

    async def answers(self) -> list[httpx.Response]:
        return await asyncio.gather(*self._asked)


async def ask(entry: ModelEntry, max_tokens: int = 24, text: str = TEXT) -> httpx.Response:
    """A request of a client's."""
    url = f"http://127.0.0.1:{entry.launcher.port}/v1/"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client:
        if entry.name == "bge-small":
            return await client.post(url + "embeddings", json={"model": entry.served_name, "input": text})
        body: dict[str, Any] = {
            "model": entry.served_name,
            "prompt": text,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        return await client.post(url + "completions", json=body)


FIRST = ["/v1/completions"]
SLEEP = ["/sleep?level={}&mode=wait", "/is_sleeping"]
RESET = ["/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"]
WAKE = {
    1: [*RESET, "/wake_up", "/is_sleeping", "/v1/completions"],
    2: [
        "/wake_up?tags=weights",
        "/collective_rpc",
        *RESET,
        "/wake_up?tags=kv_cache",
        "/is_sleeping",
        "/v1/completions",
    ],
}


async def sleeps_and_wakes(entry: ModelEntry, engine: Child) -> None:
    """The whole sequence at both levels, with a request at each of its steps: none is cut, refused or lost."""
    with pytest.MonkeyPatch.context() as patch:
        storm = Storm(entry, patch)
        for level in (1, 2):
            await engine.sleep(level)
            assert engine.asleep == level
            assert [metric async for metric in states(entry)] == {1: ["weights_offloaded"], 2: ["discard_all"]}[level]
            await engine.wake()
            assert engine.asleep is None
            assert [metric async for metric in states(entry)] == ["awake"]
        answers = await storm.answers()
    assert {answer.status_code for answer in answers} == {200}
    if entry.name != "bge-small":
        ends = {(a.json()["choices"][0]["finish_reason"], a.json()["usage"]["completion_tokens"]) for a in answers}
        assert ends == {("length", 24)}
        expected = list(FIRST)
        for level in (1, 2):
            expected += [step.format(level) for step in SLEEP] + WAKE[level]
        assert without_repeats(storm.steps) == expected
    assert len(answers) == len(storm.steps)


def without_repeats(steps: list[str]) -> list[str]:
    """A probe that was asked again, because requests of the storm were in its batch, counts once."""
    return [step for step, before in zip(steps, [None, *steps], strict=False) if step != before]


async def states(entry: ModelEntry) -> AsyncIterator[str]:
    """What vLLM's own metrics say of its state."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{entry.launcher.port}/metrics")).text
    for line in text.splitlines():
        if line.startswith("vllm:engine_sleep_state{") and line.endswith(" 1.0"):
            yield line.partition('sleep_state="')[2].partition('"')[0]


async def test_a_stock_engine_sleeps_and_wakes_at_both_levels_whatever_arrives(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = may_sleep(settings, "qwen-0.5b", "off")
    async with started(entry) as engine:
        await sleeps_and_wakes(entry, engine)
        monkeypatch.setattr(sleeping, "DRAIN_S", 0.3)
        begun = asyncio.Event()
        long = asyncio.create_task(reason_of_a_stream(entry, begun))
        async with asyncio.timeout(30):
            await begun.wait()
        await engine.sleep(1)
        assert await long == "abort"
        held = asyncio.create_task(ask(entry))
        await engine.stop()  # asleep, and with a request
        assert (await engine.exited()).code == 0
        await asyncio.wait([held])


async def reason_of_a_stream(entry: ModelEntry, begun: asyncio.Event) -> str | None:
    """Why a long answer ended; ``begun`` is set at its first token.

    vLLM's metrics would not tell: a server that is busy answers them when the request is over.
    """
    url, reason = f"http://127.0.0.1:{entry.launcher.port}/v1/completions", None
    body = {"model": entry.served_name, "prompt": TEXT, "max_tokens": 3900, "ignore_eos": True, "stream": True}
    async with (
        httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client,
        client.stream("POST", url, json=body) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                reason = json.loads(line[6:])["choices"][0]["finish_reason"]
                begun.set()
    return reason


async def test_forked_engines_sleep_and_wake_at_both_levels_whatever_arrives(settings: Settings) -> None:
    entries = [may_sleep(settings, name, "auto") for name in ("qwen-0.5b", "bge-small")]
    host = build_host(entries)
    assert host is not None
    keeping = asyncio.create_task(host.run())
    try:
        await until(lambda: host.state == "ready", "the host is ready", HOST_S)
        for entry in entries:
            async with started(entry, host) as engine:
                short = await ask(entry, text="Hi")  # of which vLLM would die where the processor has AMX
                assert (entry.name, short.status_code) == (entry.name, 200)
                await sleeps_and_wakes(entry, engine)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


def test_what_is_asked_of_vllm_is_what_it_has(settings: Settings) -> None:
    """The routes and their parameters, read from the pinned release: another one has to be looked at again."""
    python = Path(build_launcher(may_sleep(settings, "qwen-0.5b", "off")).spec().argv[0])  # type: ignore[attr-defined]
    (folder,) = python.parent.parent.glob("lib/python3*/site-packages/vllm/entrypoints")
    text = (folder / "serve" / "dev" / "sleep" / "api_router.py").read_text()
    for piece in ('@router.post("/sleep")', 'mode: Annotated[PauseMode, Query()] = "abort"', 'getlist("tags")'):
        assert piece in text
