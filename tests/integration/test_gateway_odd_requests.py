"""Requests that no ordinary client makes: they cost nobody else an answer, and start nothing for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    flags = ["--token-delay", "0.02", "--tokens", "100"]
    with Stack(fakes.config({"a": flags, "b": flags})) as it:
        yield it


async def test_two_requests_of_one_call_id_have_a_lease_each(stack: Stack) -> None:
    """LiteLLM takes a call's id from the client's header: the end of one call is not the end of the other."""
    async with stack.async_client() as client:

        async def answer(words: int, begun: asyncio.Event) -> str | None:
            stream = await client.chat.completions.create(
                model="a",
                messages=[{"role": "user", "content": f"{time.time_ns()}"}],
                max_tokens=words,
                stream=True,
                extra_headers={"x-litellm-call-id": "the-same"},
            )
            reason = None
            async for piece in stream:
                begun.set()
                reason = piece.choices[0].finish_reason
            return reason

        begun = asyncio.Event()
        long = asyncio.create_task(answer(100, begun))
        await begun.wait()
        short = asyncio.create_task(answer(20, asyncio.Event()))
        await until(lambda: stack.leases() == 2, "each has its lease")
        assert await short == "stop"
        other = asyncio.create_task(asyncio.to_thread(stack.chat, "b", f"{time.time_ns()}"))
        assert await long == "stop"
        assert (await other).status_code == 200
