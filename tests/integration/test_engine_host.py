"""The engine host with a fake vLLM: forks are real, and whatever goes wrong costs speed only."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.base import LaunchError, Progress
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.process.records import read_record, session, sweep
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm import engine_host
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.host import internals
from roundhouse.launchers.vllm.host.internals import Unfit
from roundhouse.launchers.vllm.launcher import VllmProcess, build_host
from tests.support import fake_vllm
from tests.support.machine import WSL, kernel
from tests.support.stack import free_port
from tests.support.waiting import gone, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_vllm.make(tmp_path_factory.mktemp("env") / "engine")


@pytest.fixture(autouse=True)
def home(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_KEY", "key-of-the-engines")
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", str(python))
    monkeypatch.setattr(engine_host, "BACKOFF_FIRST_S", 0.1)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    return tmp_path


def entry(home: Path, *flags: str, **more: Any) -> ModelEntry:
    port = free_port()
    spec = {"kind": "vllm", "port": port, "model": str(home / "weights"), "args": [f"--fake={' '.join(flags)}"]}
    return ModelEntry.model_validate(
        {
            "name": "m",
            "served_name": "m",
            "api_base": f"http://127.0.0.1:{port}/v1",
            "device": "d",
            "launcher": {**spec, "stop_grace_s": 2, **more},
        }
    )


@asynccontextmanager
async def running(it: ModelEntry, ready: bool = True) -> AsyncIterator[EngineHost]:
    """An engine host for the model, kept as residency keeps it."""
    host = build_host([it])
    assert host is not None
    keeping = asyncio.create_task(host.run())
    try:
        if ready:
            await until(lambda: host.state == "ready", "the host is ready")
        yield host
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        assert sweep(paths.engine_records()) == []
        assert sweep(paths.host_records()) == []


def ignore(progress: Progress) -> None:
    """Nobody looks."""


async def start(it: ModelEntry, host: EngineHost | None) -> tuple[VllmProcess, Child]:
    launcher = build_launcher(it, host)
    assert isinstance(launcher, VllmProcess)
    engine = await launcher.start(ignore)
    assert isinstance(engine, Child)
    return launcher, engine


def forked(engine: Child, host: EngineHost) -> bool:
    """Whether the engine is a child of the host."""
    return psutil.Process(engine.pid).ppid() == host.pid


async def test_a_server_is_forked_and_is_its_own_process_in_every_way(home: Path) -> None:
    it = entry(home)
    async with running(it) as host:
        _, engine = await start(it, host)
        assert forked(engine, host)
        assert os.getsid(engine.pid) == engine.pid
        assert host.pid is not None
        await asyncio.to_thread(look_at, engine.pid, host.pid, it.launcher.port)
        await engine.stop()
        assert gone(engine.pid)
        assert (await engine.exited()).code == 0
        assert not paths.engine_scratch(it.launcher.port).exists()


def look_at(engine: int, host: int, port: int) -> None:
    """A forked server from outside: what it shows, what it has open, what the kernel thinks of it."""
    process = psutil.Process(engine)
    assert "key-of-the-engines" not in " ".join((*process.cmdline(), *process.environ().values()))
    url = f"http://127.0.0.1:{port}/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer key-of-the-engines"}).status_code == 200
    assert "EngineCore by fork" in engine_log()
    assert "Starting vLLM server" in engine_log()
    assert _score(host) == 500
    assert _score(engine) == _score(os.getpid())
    assert [c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN] == [port]
    assert psutil.Process(host).net_connections() == []
    assert not _sockets(engine) & _sockets(host)


def engine_log() -> str:
    return (paths.log_dir() / "engine-m.log").read_text()


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _sockets(pid: int) -> set[str]:
    files = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return {name for name in files if name.startswith("socket:")}


async def test_how_a_forked_server_ended_is_known(home: Path) -> None:
    it = entry(home)
    async with running(it) as host:
        _, engine = await start(it, host)
        os.kill(engine.pid, signal.SIGKILL)
        exit_ = await engine.exited()
        assert (exit_.code, "killed by SIGKILL" in exit_.text) == (-signal.SIGKILL, True)
        await engine.stop(force=True)


async def test_its_servers_outlive_the_host_and_another_host_comes(home: Path) -> None:
    it = entry(home)
    async with running(it) as host:
        launcher, engine = await start(it, host)
        first = host.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: host.pid not in (None, first) and host.state == "ready", "another host is ready")
        assert engine.alive
        await engine.stop()
        assert (await engine.exited()).code is None
        again = await launcher.start(ignore)
        assert isinstance(again, Child)
        assert forked(again, host)
        await again.stop()


async def test_a_fork_that_is_never_told_to_go_ends_with_the_connection(home: Path) -> None:
    it = entry(home)
    async with running(it) as host:
        spec = build_launcher(it, host).spec()  # type: ignore[attr-defined]
        spec.prepare()
        pid = await host._fork(spec, spec.argv[3:], {})
        assert not gone(pid)
        assert host._writer is not None
        host._writer.close()
        await until(lambda: gone(pid), "the fork is gone")


async def test_a_cancelled_start_leaves_nothing_wherever_it_was(home: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    it = entry(home, "--child", "--start-delay", "5")
    async with running(it) as host:
        assert host.pid is not None
        for _ in range(25):
            starting = asyncio.create_task(start(it, host))
            await asyncio.wait([starting], timeout=rng.uniform(0, 0.12))
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert sweep(paths.engine_records()) == []
            assert read_record(paths.engine_records(), "m") is None
        children = psutil.Process(host.pid)
        await until(lambda: not children.children(recursive=True), "no fork is left")


async def test_an_engine_that_fails_from_the_host_is_started_the_stock_way_from_then_on(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    it = entry(home, "--exit-at-once", "3")
    async with running(it) as host:
        launcher = build_launcher(it, host)
        for _ in range(2):
            with pytest.raises(LaunchError, match="CUDA out of memory"):
                await launcher.start(ignore)
        assert caplog.text.count("event=stock_start") == 1
        assert host.state == "ready"


async def test_an_engine_killed_from_outside_does_not_speak_against_the_host(home: Path) -> None:
    it = entry(home, "--start-delay", "30")
    async with running(it) as host:
        launcher = build_launcher(it, host)
        for _ in range(2):
            starting = asyncio.create_task(launcher.start(ignore))
            record = await until(lambda: read_record(paths.engine_records(), "m"), "it is recorded")
            assert record is not None
            assert psutil.Process(record.pid).ppid() == host.pid
            os.kill(record.pid, signal.SIGKILL)
            with pytest.raises(LaunchError, match="killed by SIGKILL") as error:
                await starting
            assert error.value.retryable


def is_stock(engine: Child) -> bool:
    """Whether the engine is a child of ours."""
    return psutil.Process(engine.pid).ppid() == os.getpid()


async def test_where_cuda_is_initialised_every_start_is_stock(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM_CUDA", "1")
    it = entry(home)
    async with running(it) as host:
        launcher, engine = await start(it, host)
        assert is_stock(engine)
        assert "EngineCore by spawn" in engine_log()
        assert launcher._host is None  # it is not asked again
        await engine.stop()


async def test_a_host_is_ready_once_the_threads_of_its_imports_have_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_THREAD", str(home / "ends"))
    it = entry(home)
    async with running(it, ready=False) as host:
        log = paths.log_dir() / "vllm-host.log"
        await until(lambda: log.exists() and "fake-build-reaper); waiting for it" in log.read_text(), "it says so")
        waits = asyncio.Event()
        launcher = build_launcher(it, host)
        starting = asyncio.create_task(launcher.start(lambda progress: waits.set()))
        await waits.wait()  # for the host: the stock way would make the same imports
        assert host.state == "importing"
        (home / "ends").touch()
        engine = await starting
        assert isinstance(engine, Child)
        assert forked(engine, host)
        await engine.stop()


async def test_a_thread_in_the_host_costs_one_start_and_not_the_host(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("FAKE_VLLM_THREAD", str(home / "ends"))
    monkeypatch.setenv("FAKE_VLLM_IMPATIENT", "1")
    it = entry(home)
    async with running(it) as host:
        launcher, engine = await start(it, host)
        assert is_stock(engine)
        assert "a thread runs in the host and may hold a lock (fake-build-reaper)" in caplog.text
        await engine.stop()
        (home / "ends").touch()
        assert host.pid is not None
        process = psutil.Process(host.pid)
        await until(lambda: process.num_threads() == 1, "the thread has ended")
        again = await launcher.start(ignore)
        assert isinstance(again, Child)
        assert forked(again, host)
        await again.stop()


def test_on_wsl2_no_host_is_tried(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kernel(monkeypatch, WSL)
    assert build_host([entry(home)]) is None
    assert "vLLM does not fork on WSL2" in caplog.text


def test_cuda_that_was_initialised_past_torch_is_seen_by_what_it_has_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(internals, "CUDA_DEVICE", str(home / "nvidia-uvm"))
    with (home / "nvidia-uvm").open("w"):
        assert internals.unfit_to_fork() == Unfit("CUDA is initialised in the host", lasting=True)
    unfit = internals.unfit_to_fork()
    assert unfit is None or not unfit.lasting


async def test_another_vllm_has_no_host(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", str(fake_vllm.make(tmp_path / "other", version="0.99.0")))
    it = entry(home)
    async with running(it, ready=False) as host:
        await until(lambda: host.state == "unsupported", "the host has looked")
        _, engine = await start(it, host)
        assert psutil.Process(engine.pid).ppid() == os.getpid()
        await engine.stop()


async def test_a_model_with_variables_of_its_own_is_started_the_stock_way(home: Path) -> None:
    async with running(entry(home)) as host:
        it = entry(home, env={"OMP_NUM_THREADS": "1"})
        _, engine = await start(it, host)
        assert psutil.Process(engine.pid).ppid() == os.getpid()
        await engine.stop()


async def test_a_host_that_imports_stands_still_while_an_engine_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_IMPORT_S", "1000")
    monkeypatch.setattr(engine_host, "IMPORT_S", 0.1)  # it takes too long to be waited for
    it = entry(home, "--start-delay", "1000")
    async with running(it, ready=False) as host:
        await until(lambda: host.pid is not None, "the host imports")
        assert host.pid is not None
        process = psutil.Process(host.pid)
        starting = asyncio.create_task(start(it, host))
        await until(lambda: process.status() == psutil.STATUS_STOPPED, "it stands still")
        starting.cancel()
        await asyncio.wait([starting])
        await until(lambda: process.status() != psutil.STATUS_STOPPED, "it goes on")


async def test_a_host_is_taken_over_after_a_crash_unless_it_is_another_one(home: Path) -> None:
    it = entry(home)
    left = build_host([it])
    assert left is not None
    left._start()
    async with running(it) as host:
        assert host.pid == left.pid
        _, engine = await start(it, host)
        assert forked(engine, host)
        await engine.stop()
    await left._end()
    left._start()
    changed = build_host([it])
    assert changed is not None
    changed.spec = replace(changed.spec, env={**changed.spec.env, "X": "1"})
    assert changed._left() is None
    assert left._process is not None
    assert left._process.wait(10) == -signal.SIGKILL


async def test_short_memory_ends_the_host_and_lets_no_other_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_host, "CHECK_S", 0.05)
    it = entry(home)
    async with running(it) as host:
        monkeypatch.setattr(engine_host, "SHORT_BYTES", 2**60)
        monkeypatch.setattr(engine_host, "ROOM_BYTES", 2**60)
        await until(lambda: host.state == "dropped", "the host is dropped")
        assert read_record(paths.host_records(), engine_host.NAME) is None
        _, engine = await start(it, host)
        await engine.stop()
        monkeypatch.setattr(engine_host, "ROOM_BYTES", 0)
        monkeypatch.setattr(engine_host, "SHORT_BYTES", 0)
        await until(lambda: host.state == "ready", "there is room again")


async def test_random_kills_of_host_and_engine_lose_no_start(home: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    it = entry(home, "--child")
    async with running(it) as host:
        launcher = build_launcher(it, host)
        for _ in range(30):
            victim = rng.choice(["nobody", "host", "engine"])
            starting = asyncio.create_task(launcher.start(ignore))
            await asyncio.wait([starting], timeout=rng.uniform(0, 0.2))
            record = read_record(paths.engine_records(), "m")
            if victim == "host" and host.pid is not None:
                os.kill(host.pid, signal.SIGKILL)
            elif victim == "engine" and record is not None:
                os.kill(record.pid, signal.SIGKILL)
            await asyncio.wait([starting])
            error = starting.exception()
            if error is None:
                await starting.result().stop(force=True)
            else:
                assert (victim, isinstance(error, LaunchError) and error.retryable) == ("engine", True), error
            assert record is None or session(record.pid, record.born) == []
