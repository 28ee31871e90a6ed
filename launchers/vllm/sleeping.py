"""vLLM's sleep endpoints, in the order in which its pinned release wants them, and a probe of what comes of it.

The endpoints know no key: the engine's port is on loopback and nobody but us has business there. They are easy to
get wrong: parameters in a JSON body are ignored, ``mode`` is "abort" unless said, a wake from level 2 without
``reload_weights`` answers garbage with status 200, and ``/health`` is 200 whatever happens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from roundhouse.launchers.base import Answer, SleepError
from roundhouse.launchers.process.loopback import loopback_client

DRAIN_S = 10.0
"""How long what is left in the engine may hold up a sleep before it is aborted. Our own requests have ended before:
this is a client's that has just left, or a stranger's. ``mode=wait`` has no limit of its own."""

SLEEP_S = 120.0
"""How long a sleep may take: the first one at level 1 pins RAM (10.6 s were published for 16 GB), later ones copy."""

WAKE_S = 60.0
"""How long a wake may take without reading weights: a copy from RAM, or allocation alone; 3 s were published."""

PROBE_S = 60.0
"""How long the first answer after a wake may take: kernels may have to be compiled again."""

STATE_S = 10.0
"""How long a question about the state or a reset of caches may take; the engine does nothing else meanwhile."""

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8,"
"""What is asked: a model that works is sure how to go on, so rounding does not tip it."""

TOKENS = 4

DIMENSIONS = 128
"""How much of an embedding is kept: enough to tell it from any other."""

ALIKE = 0.99
"""Cosine of two embeddings of the same text, above which they are the same but for rounding."""

TRIES = 2
"""A stranger's request in the same batch may round differently; what is broken is wrong twice."""


@dataclass(frozen=True, slots=True)
class SleepEndpoints:
    """One engine's: its port, the name it serves, its ``key``, and how long it may take to load its weights.

    Every method raises SleepError if an answer is not as it has to be; then the engine is in an unknown state.
    """

    model: str
    port: int
    served_name: str
    key: str
    load_s: float

    async def sleep(self, level: int) -> None:
        """Put it to sleep; on return it says that it sleeps."""
        step = f"sleep at level {level}"
        async with self._client() as client:
            params = {"level": str(level), "mode": "wait"}
            try:
                await self._post(client, step, "/sleep", DRAIN_S, params=params)
            except _Late:  # it waits for a request, or copies: then there is nothing to abort, and the second one waits
                await self._post(client, "abort what is left", "/abort_requests", STATE_S, body={})
                await self._post(client, step, "/sleep", SLEEP_S, params=params)
            await self._require_state(client, step, asleep=True)

    async def wake(self, level: int) -> None:
        """Wake it from ``level``; on return it says that it is awake.

        The caches are reset before it may compute again: nothing of an earlier life is left in them, and no
        request that came meanwhile and runs as soon as it may can stand in the way.
        """
        async with self._client() as client:
            if level == 2:
                await self._post(client, "make room for its weights", "/wake_up", WAKE_S, params={"tags": "weights"})
                reload = {"method": "reload_weights"}
                await self._post(client, "reload its weights", "/collective_rpc", self.load_s, body=reload)
                await self._reset(client)
                await self._post(client, "make room for its cache", "/wake_up", WAKE_S, params={"tags": "kv_cache"})
            else:
                await self._reset(client)
                await self._post(client, "wake up", "/wake_up", WAKE_S)
            await self._require_state(client, "wake up", asleep=False)

    async def _reset(self, client: httpx.AsyncClient) -> None:
        """Empty its caches: blocks, pictures, and what the encoder made of them."""
        done = await self._post(client, "reset its prefix cache", "/reset_prefix_cache", STATE_S)
        if done.get("success") is False:
            raise SleepError(self.model, f"model {self.model!r}: its prefix cache could not be reset")
        for path in ("/reset_mm_cache", "/reset_encoder_cache"):
            await self._post(client, "reset its caches", path, STATE_S)

    async def asleep(self) -> bool:
        """Whether it says that it sleeps, or does so in part."""
        async with self._client() as client:
            return await self._asleep(client)

    async def probe(self) -> Answer:
        """What it answers to a fixed question, greedily."""
        async with self._client() as client:
            head = {"model": self.served_name}
            ask = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
            answer = await self._ask(client, "/v1/completions", head | ask | {"return_token_ids": True})
            try:
                if answer is not None:
                    choice = answer["choices"][0]
                    return str(choice.get("token_ids") or choice["text"])
                answer = await self._ask(client, "/v1/embeddings", head | {"input": PROMPT})
                if answer is not None:
                    return [float(x) for x in answer["data"][0]["embedding"][:DIMENSIONS]]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                what = f"its answer to the probe makes no sense: {str(answer)[:200]}"
                raise SleepError(self.model, f"model {self.model!r}: {what}") from error
        text = "it neither completes text nor embeds it, so a wake cannot be checked; set launcher.sleep to off"
        raise SleepError(self.model, f"model {self.model!r}: {text}")

    async def require(self, expected: Answer) -> None:
        """Return if it answers the probe as ``expected``."""
        answer: Answer = ""
        for _ in range(TRIES):
            answer = await self.probe()
            if same(answer, expected):
                return
        text = f"it answers, but not what it answered before it slept: {_brief(answer)} instead of {_brief(expected)}"
        raise SleepError(self.model, f"model {self.model!r}: {text}")

    # --- one exchange --------------------------------------------------------------------------------

    def _client(self) -> httpx.AsyncClient:
        client = loopback_client()
        client.base_url = httpx.URL(f"http://127.0.0.1:{self.port}")
        client.headers["authorization"] = f"Bearer {self.key}"
        return client

    async def _require_state(self, client: httpx.AsyncClient, step: str, *, asleep: bool) -> None:
        if await self._asleep(client) != asleep:
            state = "awake" if asleep else "asleep"
            raise SleepError(self.model, f"model {self.model!r}: it was told to {step} and says that it is {state}")

    async def _asleep(self, client: httpx.AsyncClient) -> bool:
        said = await self._send(client, "say whether it sleeps", "GET", "/is_sleeping", STATE_S)
        return bool(_object(said).get("is_sleeping"))

    async def _post(
        self,
        client: httpx.AsyncClient,
        step: str,
        path: str,
        deadline_s: float,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> dict[str, Any]:
        return _object(await self._send(client, step, "POST", path, deadline_s, params=params, json=body))

    async def _ask(self, client: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any] | None:
        """The answer, ``None`` if this model has no such route."""
        response = await self._send(client, "answer the probe", "POST", path, PROBE_S, json=body, allow=404)
        return None if response.status_code == 404 else _object(response)

    async def _send(
        self,
        client: httpx.AsyncClient,
        step: str,
        method: str,
        path: str,
        deadline_s: float,
        *,
        allow: int = 200,
        **more: Any,
    ) -> httpx.Response:
        what = f"model {self.model!r}: could not {step} ({method} {path})"
        try:
            response = await client.request(method, path, timeout=deadline_s, **more)
        except httpx.TimeoutException:
            raise _Late(self.model, f"{what}: no answer in {deadline_s:g} s") from None
        except httpx.HTTPError as error:
            raise SleepError(self.model, f"{what}: {type(error).__name__}: {error}") from error
        if response.status_code not in (200, allow):
            text = " ".join(response.text.split())[:200]
            raise SleepError(self.model, f"{what}: status {response.status_code}: {text}")
        return response


class _Late(SleepError):
    """There was no answer in time."""


def same(answer: Answer, expected: Answer) -> bool:
    """Whether two answers to the probe are of the same model in the same health."""
    if isinstance(answer, str) or isinstance(expected, str):
        return answer == expected
    if len(answer) != len(expected) or not all(map(math.isfinite, answer)):
        return False
    norm = math.hypot(*answer) * math.hypot(*expected)
    return norm > 0 and sum(a * b for a, b in zip(answer, expected, strict=True)) / norm >= ALIKE


def _object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a response; empty where there is none."""
    try:
        it = response.json()
    except ValueError:
        return {}
    return it if isinstance(it, dict) else {}


def _brief(answer: Answer) -> str:
    return repr(answer if isinstance(answer, str) else [round(x, 3) for x in answer[:4]])
