"""The control plane and its client over a real unix socket."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from roundhouse.hooks.lease_scope import LeaseScope
from roundhouse.launchers.base import LaunchError
from roundhouse.residency.client.http import http_client
from roundhouse.residency.client.leases import LeaseClient
from roundhouse.residency.codes import Refused
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.states import State
from tests.support.residency import Residency, residency

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.sock"


def state(r: Residency, model: str) -> State:
    return r.scheduler.machine.engines[model].state


def leases(r: Residency, model: str) -> int:
    return len(r.scheduler.machine.engines[model].leases)


async def test_a_lease_starts_the_engine_and_is_given_back(path: Path) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        events: list[str] = []
        lease = await client.acquire("a", on_event=lambda e: events.append(e["event"]))
        assert leases(r, "a") == 1
        assert events[0] in ("queued", "starting")
        lease.release()
        lease.release()
        await r.until(lambda: leases(r, "a") == 0)
        await client.aclose()


async def test_another_model_waits_for_the_lease_and_then_gets_the_device(path: Path) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        first = await client.acquire("a")
        second = asyncio.create_task(client.acquire("b"))
        await r.until(lambda: r.scheduler.machine.waiting == 1)
        assert state(r, "a").serves  # it has a lease, though what starts in no time is left as soon
        await r.until(lambda: r.launchers["b"].prepares == 1)
        first.release()
        assert (await second).model == "b"
        assert not r.launchers["a"].alive
        await client.aclose()


async def test_cancelling_a_wait_lets_the_start_go_on_until_another_model_is_wanted(path: Path) -> None:
    async with residency(path) as r:
        r.launchers["a"].may_start.clear()
        client = LeaseClient(path)
        task = asyncio.create_task(client.acquire("a"))
        await r.until(lambda: r.launchers["a"].alive)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await r.until(lambda: not r.scheduler.machine.waiting)
        assert state(r, "a") is State.STARTING
        lease = await client.acquire("b")
        assert state(r, "a") is State.STOPPED
        assert not r.launchers["a"].alive
        lease.release()
        await client.aclose()


async def test_a_failed_start_is_told_with_its_reason_and_when_to_come_back(path: Path) -> None:
    async with residency(path) as r:
        r.launchers["a"].error = LaunchError("a", "model 'a': engine exited (code 1): CUDA out of memory")
        client = LeaseClient(path)
        with pytest.raises(Refused, match="CUDA out of memory") as refused:
            await client.acquire("a")
        assert (refused.value.code, refused.value.status) == ("model_failed", 503)
        assert refused.value.retry_after_s == pytest.approx(5, abs=1)
        await client.aclose()


async def test_a_dead_worker_gives_everything_back(path: Path) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        await client.acquire("a")
        waiting = asyncio.create_task(client.acquire("b"))
        await r.until(lambda: r.scheduler.machine.waiting == 1)
        await client.aclose()
        await r.until(lambda: leases(r, "a") == 0 and r.scheduler.machine.waiting == 0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_restarted_residency_learns_what_is_still_held_before_it_switches(path: Path) -> None:
    client = LeaseClient(path)
    async with residency(path):
        lease = await client.acquire("a")
    # The socket is gone; the client keeps its lease and comes back.
    async with residency(path, prepare=lambda ls: setattr(ls["a"], "adoptable", True)) as r:
        await r.until(lambda: leases(r, "a") == 1)
        second = asyncio.create_task(client.acquire("b"))
        await r.until(lambda: r.scheduler.machine.waiting == 1)
        assert r.launchers["a"].alive
        lease.release()
        assert (await second).model == "b"
        await client.aclose()


async def test_a_wait_survives_a_restart_of_residency(path: Path) -> None:
    client = LeaseClient(path)
    async with residency(path) as r:
        r.launchers["a"].may_start.clear()
        task = asyncio.create_task(client.acquire("a"))
        await r.until(lambda: r.scheduler.machine.waiting == 1)
        r.launchers["a"].may_start.set()
        r.scheduler._sinks.clear()  # the process dies before it can answer
    async with residency(path):
        assert (await task).model == "a"
        await client.aclose()


async def test_an_absent_residency_is_said_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roundhouse.residency.client.leases.ABSENT_S", 0.3)
    client = LeaseClient(path)
    with pytest.raises(Refused, match="roundhouse status"):
        await client.acquire("a")
    await client.aclose()


async def test_the_lease_route_streams_events_and_holds_while_it_is_open(path: Path) -> None:
    async with residency(path) as r, http_client(path) as client:
        async with client.stream("POST", "/lease", json={"model": "a"}) as response:
            lines = response.aiter_lines()
            events = [json.loads(await anext(lines))]
            while events[-1]["event"] != "granted":
                events.append(json.loads(await anext(lines)))
            assert leases(r, "a") == 1
        await r.until(lambda: leases(r, "a") == 0)
        assert events[0] == {
            "event": "queued",
            "model": "a",
            "position": 1,
            "estimate_s": None,  # it was never started
            "low_s": 0.0,
            "high_s": r.scheduler.machine.bounds.max_wait_s,
        }


async def test_switch_and_unload_stream_to_their_end(path: Path) -> None:
    async with residency(path) as r, http_client(path) as client:
        body = (await client.post("/switch", json={"model": "b"})).text
        assert json.loads(body.splitlines()[-1])["event"] == "granted"
        assert (await client.get("/status")).json()["devices"][0]["resident"] == "b"
        body = (await client.post("/unload", json={"model": None})).text
        assert json.loads(body.splitlines()[-1])["event"] == "done"
        assert state(r, "b") is State.STOPPED


async def test_shutdown_drains_stops_and_ends(path: Path) -> None:
    async with residency(path) as r, http_client(path) as client:
        leaser = LeaseClient(path)
        lease = await leaser.acquire("a")
        ending = asyncio.create_task(client.post("/shutdown"))
        await r.until(lambda: r.scheduler.machine.closing)
        with pytest.raises(Refused, match="shutting down"):
            await leaser.acquire("b")
        lease.release()
        assert json.loads((await ending).text.splitlines()[-1])["event"] == "done"
        assert r.shutdown.is_set()
        assert not r.launchers["a"].alive
        await leaser.aclose()


async def test_metrics_and_events_show_the_same_state(path: Path) -> None:
    async with residency(path) as _, http_client(path) as client:
        await client.post("/switch", json={"model": "a"})
        text = (await client.get("/metrics")).text
        assert 'roundhouse_model_state{model="a",state="ready"} 1.0' in text
        assert "roundhouse_switches_total 1.0" in text
        async with client.stream("GET", "/events") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: status"


async def test_why_a_model_is_left_stands_in_the_log_the_events_and_the_metrics(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="roundhouse.residency")
    async with residency(path) as r, http_client(path) as client:
        events: list[dict[str, object]] = []
        r.scheduler.watch(events.append)
        await client.post("/switch", json={"model": "a"})
        await client.post("/switch", json={"model": "b"})
        reason = "switch to b was ordered"
        decided = {"event": "decided", "device": "gpu0", "kind": "ordered", "reason": reason}
        assert [json.loads(json.dumps(it)) for it in events if it["event"] == "decided"] == [decided]
        assert f"event=decided device=gpu0 kind=ordered reason={reason!r}" in caplog.text
        assert [it["reason"] for it in events if it["event"] == "stopping"] == [reason]
        assert f"event=switch device=gpu0 from=a to=b reason={reason!r}" in caplog.text
        text = (await client.get("/metrics")).text
        assert 'roundhouse_decisions_total{device="gpu0",kind="ordered"} 1.0' in text


async def test_bad_bodies_are_refused(path: Path) -> None:
    async with residency(path) as _, http_client(path) as client:
        for body in (b"", b"{", b"[]", b'{"model": 3}'):
            assert (await client.post("/switch", content=body)).status_code == 400
        for body in (b"", b"{", b"[]", b"{}", b'{"modle": "a"}', b'{"model": null, "force": "false"}'):
            assert (await client.post("/unload", content=body)).status_code == 400


async def test_a_stop_that_raises_closes_the_service_and_says_why(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        (await client.acquire("a")).release()
        error = r.launchers["a"].stop_error = RuntimeError("the record cannot be removed")
        waiting = asyncio.create_task(client.acquire("b"))
        async with asyncio.timeout(5):
            await r.scheduler.closed.wait()
        assert r.scheduler.broken is error
        [said] = [it for it in caplog.records if it.levelname == "CRITICAL"]
        assert "event=task_died task='stop a'" in said.getMessage()
        r.launchers["a"].stop_error = None
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.aclose()


async def test_a_message_that_cannot_be_sent_ends_the_connection_and_not_the_wait(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        lease = await client.acquire("a")
        client._out.put_nowait({"op": {"no JSON"}})  # type: ignore[dict-item]
        again = await client.acquire("a")
        assert "event=conversation_broken" in caplog.text
        assert leases(r, "a") == 2
        lease.release()
        again.release()
        await client.aclose()


async def test_an_event_that_cannot_be_sent_ends_the_connection_and_not_the_wait(path: Path) -> None:
    async with residency(path) as r:
        r.launchers["a"].may_start.clear()
        client = LeaseClient(path)
        waiting = asyncio.create_task(client.acquire("a"))
        await r.until(lambda: r.scheduler.machine.waiting == 1)
        for sink in list(r.scheduler._sinks.values()):
            sink({"event": {"no JSON"}})
        await r.until(lambda: r.scheduler.machine.waiting == 0)
        await r.until(lambda: r.scheduler.machine.waiting == 1)  # the client came back and asked again
        r.launchers["a"].may_start.set()
        (await waiting).release()
        await client.aclose()


async def test_a_storm_of_requests_that_come_wait_leave_and_crash_leaves_nothing_behind(path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    async with residency(path, bounds=Bounds(max_wait_s=1.0, drain_timeout_s=5.0)) as r:
        client = LeaseClient(path)

        async def one() -> str:
            model = rng.choice("abc")
            task = asyncio.create_task(client.acquire(model))
            if rng.random() < 0.3:
                for _ in range(rng.randrange(8)):
                    await asyncio.sleep(0)  # leave after some turns of the loop
                task.cancel()
            try:
                lease = await task
            except asyncio.CancelledError:
                return "left"
            except Refused:
                return "refused"
            assert r.launchers[model].alive or r.scheduler.machine.counters.crashes
            if rng.random() < 0.05 and (engine := r.launchers[model].engine) is not None:
                engine.gone.set()
            lease.release()
            return "served"

        results = await asyncio.gather(*(one() for _ in range(1000)))
        assert results.count("served") > 100
        machine = r.scheduler.machine
        await r.until(lambda: not machine.tickets.place and machine.waiting == 0)
        assert client.held == 0
        await client.aclose()


async def test_a_lease_that_only_the_backstop_gave_back_is_counted(path: Path) -> None:
    async with residency(path) as r:
        client = LeaseClient(path)
        (await client.acquire("a")).release()
        scope = LeaseScope(leases=[await client.acquire("a")])
        await scope.close()
        await r.until(lambda: leases(r, "a") == 0)
        async with http_client(path) as api:
            assert "roundhouse_backstop_releases_total 1.0" in (await api.get("/metrics")).text
        await client.aclose()
