"""The benchmarks run and tell what they promise to tell."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from roundhouse.bench import overhead, switch
from roundhouse.bench.load import Connection, Target, requests_per_s, tokens_per_s
from roundhouse.bench.stack import free_port
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FAR_OFF_MS = 250.0
"""Ten times what our share of a switch was measured to be, for machines that do something else, too."""


def test_a_switch_costs_little_beside_the_engines_own_time_stopped_or_asleep() -> None:
    said: list[str] = []
    figures = switch.run(3, said.append)
    assert figures["own_share_ms"]["median"] < FAR_OFF_MS
    assert figures["warm"]["own_share_ms"]["median"] < FAR_OFF_MS
    assert figures["warm"]["switch_ms"]["median"] < figures["switch_ms"]["median"]
    assert figures["cold_ms"] > switch.START_S * 1e3
    assert len(said) == 6


async def test_the_load_counts_requests_and_the_tokens_that_came() -> None:
    port = free_port()
    argv = [sys.executable, str(overhead.ENGINE), "--port", str(port)]
    engine = await asyncio.create_subprocess_exec(*argv)
    try:
        await until(lambda: not refused(port), "the engine listens")
        target = Target(port, "none", "trivial")
        assert await requests_per_s(target, at_once=4, requests=8) > 0
        assert await tokens_per_s(target, streams=2, tokens=100) > 0
        async with Connection(target) as connection:
            assert await connection.ask(max_tokens=7, stream=True) == 7
    finally:
        engine.terminate()
        await engine.wait()


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
