"""One engine as one process group: started, watched, adopted, ended, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.base import LaunchError, Progress
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process import readiness
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.process.records import Record, kill_session, read_record, session, sweep
from roundhouse.launchers.registry import build_launcher
from tests.support import fakes
from tests.support.clock import Clock
from tests.support.waiting import gone, until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_KEY", "key-of-the-engines")
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-master")
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def entry(*flags: str, **more: Any) -> ModelEntry:
    spec = fakes.launcher("m", *flags, **more)
    base = f"http://127.0.0.1:{spec['port']}/v1"
    return ModelEntry.model_validate(
        {"name": "m", "served_name": "m", "api_base": base, "device": "d", "launcher": spec}
    )


def ignore(progress: Progress) -> None:
    """Nobody looks."""


async def test_a_start_tells_its_phases_and_a_stop_leaves_nothing() -> None:
    seen: list[Progress] = []
    engine = await build_launcher(entry("--start-delay", "0.3")).start(seen.append)
    assert seen[0].phase == "starting"
    assert Progress("loading weights", 50.0, engine.pid) in seen
    record = read_record(paths.engine_records(), "m")
    assert record is not None
    assert (record.pid, record.alive) == (engine.pid, True)
    assert (paths.engine_records() / "m.json").stat().st_mode & 0o777 == 0o600
    await engine.stop()
    assert gone(engine.pid)
    assert read_record(paths.engine_records(), "m") is None


@pytest.mark.parametrize("how", ["stopped by force", "killed from outside and swept"])
async def test_a_killed_engine_leaves_no_semaphore(how: str) -> None:
    engine = await build_launcher(entry("--semaphore")).start(ignore)
    said = (paths.log_dir() / "engine-m.log").read_text()
    semaphore = Path("/dev/shm") / said.split("] semaphore ")[1].split()[0]
    assert semaphore.exists()
    if how == "stopped by force":
        await engine.stop(force=True)
    else:
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.to_thread(sweep, paths.engine_records())
    assert not semaphore.exists()


async def test_an_engine_that_exits_at_once_is_noticed_at_once_with_its_last_words() -> None:
    began = time.monotonic()
    with pytest.raises(
        LaunchError, match=r"exited \(code 3\).*CUDA out of memory \(fake\).*roundhouse logs m"
    ) as error:
        await build_launcher(entry("--exit-at-once", "3")).start(ignore)
    assert time.monotonic() - began < 3
    assert not error.value.retryable


async def test_an_engine_that_never_answers_is_given_up_and_ended() -> None:
    with pytest.raises(LaunchError, match="answered 503 at /health, and was not ready within 1 s"):
        await build_launcher(entry("--never-healthy", start_timeout_s=1)).start(ignore)
    assert sweep(paths.engine_records()) == []


async def test_an_engine_without_a_health_path_is_found_out_and_the_message_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mostlygeek/llama-swap#84: koboldcpp answers 404 at /health, and was waited for to the end."""
    monkeypatch.setattr(readiness, "MISPLACED_S", 0.5)
    wrong = entry("--health-status", "404", "--models-status", "404", env={})
    with pytest.raises(LaunchError, match=r"404 at /health and 404 at /v1/models.*set launcher\.health_path"):
        await build_launcher(wrong).start(ignore)
    assert sweep(paths.engine_records()) == []


async def test_an_engine_without_a_health_path_is_ready_when_it_lists_its_models_and_is_adopted_so() -> None:
    launcher = build_launcher(entry("--health-status", "404", "--start-delay", "0.3", env={}))
    engine = await launcher.start(ignore)
    assert await launcher.adopt() is not None
    await engine.stop()


async def test_an_engine_that_says_it_is_not_ready_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "MISPLACED_S", 0.2)
    for status in ("500", "503"):
        with pytest.raises(LaunchError, match=f"answered {status} at /health, and was not ready within 1 s"):
            await build_launcher(entry("--health-status", status, start_timeout_s=1)).start(ignore)


async def test_an_engine_killed_from_outside_while_it_starts_may_be_tried_again() -> None:
    starting = asyncio.create_task(build_launcher(entry("--start-delay", "30")).start(ignore))
    record = await until(lambda: read_record(paths.engine_records(), "m"), "it is recorded")
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    with pytest.raises(LaunchError, match="killed by SIGKILL") as error:
        await starting
    assert error.value.retryable


async def test_an_engine_that_ignores_term_is_killed_after_its_grace() -> None:
    engine = await build_launcher(entry("--ignore-term", stop_grace_s=0.2)).start(ignore)
    await engine.stop()
    assert gone(engine.pid)


async def test_a_hurried_stop_does_not_wait_for_the_orderly_one() -> None:
    engine = await build_launcher(entry("--ignore-term", stop_grace_s=60)).start(ignore)
    orderly = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # it has begun
    await engine.stop(force=True)
    await orderly
    assert gone(engine.pid)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_children_do_not_outlive_their_engine(how: str) -> None:
    engine = await build_launcher(entry("--child")).start(ignore)
    record = read_record(paths.engine_records(), "m")
    assert record is not None
    assert len(session(record.pid, record.born)) == 2
    if how == "kill":
        os.kill(engine.pid, signal.SIGKILL)
        exit_ = await engine.exited()
        assert exit_.code == -signal.SIGKILL
    await engine.stop(force=how == "kill")
    assert session(record.pid, record.born) == []


async def test_a_port_in_use_is_said_before_anything_is_started() -> None:
    it = entry()
    with socket.socket() as other:
        other.bind(("127.0.0.1", it.launcher.port))
        other.listen()
        with pytest.raises(LaunchError, match=rf"port {it.launcher.port} is in use by .*\(pid {os.getpid()}\)"):
            await build_launcher(it).start(ignore)


async def test_a_cancelled_start_leaves_nothing_wherever_it_was() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(12):
        starting = asyncio.create_task(build_launcher(entry("--child", "--start-delay", "0.2")).start(ignore))
        await asyncio.wait([starting], timeout=rng.uniform(0, 0.25))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert sweep(paths.engine_records()) == []
        assert read_record(paths.engine_records(), "m") is None


async def test_fifty_starts_and_stops_leave_nothing() -> None:
    launcher = build_launcher(entry())
    before = psutil.Process().children()
    for _ in range(50):
        engine = await launcher.start(ignore)
        await engine.stop()
    assert [child for child in psutil.Process().children() if child not in before] == []


@pytest.fixture
def survivor(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first SIGKILLs to what is left of a session change nothing; the list has those that were sent so far."""
    sent: list[int] = []

    def kill(sid: int, born: Birth) -> bool:
        sent.append(sid)
        return len(sent) > 2 and kill_session(sid, born)

    monkeypatch.setattr("roundhouse.launchers.process.child.kill_session", kill)
    monkeypatch.setattr("roundhouse.launchers.process.readiness.kill_session", kill)
    monkeypatch.setattr("roundhouse.launchers.process.child.STUCK_S", 0.05)
    monkeypatch.setattr("roundhouse.launchers.process.child.STRAGGLERS_S", 0.0)
    return sent


async def test_what_survives_sigkill_is_killed_again_until_it_is_gone(
    survivor: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    engine = await build_launcher(entry("--child")).start(ignore)
    [left] = engine.pids() - {engine.pid}
    await engine.stop(force=True)
    assert gone(left)
    assert survivor == [engine.pid] * 3
    assert caplog.text.count("event=stuck model=m") == 2
    assert read_record(paths.engine_records(), "m") is None


async def test_no_engine_starts_beside_one_that_survives_sigkill(survivor: list[int]) -> None:
    it = entry("--child")
    engine = await build_launcher(it).start(ignore)
    with pytest.raises(LaunchError, match="survives SIGKILL"):
        await build_launcher(it).start(ignore)
    await engine.stop(force=True)


async def test_a_healthy_engine_of_the_same_configuration_is_adopted() -> None:
    it = entry()
    engine = await build_launcher(it).start(ignore)
    adopted = await build_launcher(it).adopt()
    assert adopted is not None
    assert adopted.pid == engine.pid
    os.kill(engine.pid, signal.SIGKILL)
    assert (await adopted.exited()).code is None
    await adopted.stop(force=True)


async def test_an_engine_of_another_configuration_is_ended_instead() -> None:
    it = entry()
    engine = await build_launcher(it).start(ignore)
    changed = it.model_copy(update={"launcher": it.launcher.model_copy(update={"env": {"X": "1"}})})
    assert await build_launcher(changed).adopt() is None
    assert gone(engine.pid)


async def test_a_stranger_with_a_recorded_pid_is_left_alone() -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    born = Birth.of(stranger.pid)
    earlier = Birth(born.boot, born.ticks - 1)
    Record("m", stranger.pid, earlier, "x", 1).write(paths.engine_records())
    assert await build_launcher(entry()).adopt() is None
    assert sweep(paths.engine_records()) == []
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


@pytest.mark.parametrize("step_s", [3600, -3600, 1])
async def test_setting_the_clock_changes_no_engine(clock: Clock, step_s: float) -> None:
    it = entry("--child")
    engine = await build_launcher(it).start(ignore)
    assert isinstance(engine, Child)
    before = engine.pids()
    clock.step(step_s)
    assert (engine.pids(), len(before)) == (before, 2)
    record = read_record(paths.engine_records(), "m")
    assert record is not None
    assert (record.alive, {process.pid for process in record.members()}) == (True, before)
    adopted = await build_launcher(it).adopt()
    assert adopted is not None
    assert adopted.pid == engine.pid
    os.kill(engine.pid, signal.SIGKILL)
    await adopted.exited()
    clock.step(-2 * step_s)
    assert len(engine.pids()) == 1  # its child
    assert await asyncio.to_thread(sweep, paths.engine_records()) == ["m"]
    assert engine.pids() == frozenset()


def as_before(**changes: Any) -> None:
    """Write the record of ``m`` as an older version did, but with ``changes``: its start by the clock."""
    path = paths.engine_records() / "m.json"
    document = json.loads(path.read_text())
    created = psutil.Process(document["pid"]).create_time()
    del document["born"]
    path.write_text(json.dumps({**document, "created": created, **changes}))


async def test_an_engine_of_an_older_versions_record_is_adopted_and_recorded_anew(clock: Clock) -> None:
    it = entry("--child")
    engine = await build_launcher(it).start(ignore)
    as_before()
    adopted = await build_launcher(it).adopt()
    assert adopted is not None
    assert adopted.pid == engine.pid
    clock.step(3600)
    record = read_record(paths.engine_records(), "m")
    assert record is not None
    assert (record.born, len(record.members())) == (Birth.of(engine.pid), 2)
    await adopted.stop(force=True)


@pytest.mark.parametrize("step_s", [3600, -3600])
async def test_an_engine_of_an_older_versions_record_is_known_by_its_port_if_the_clock_was_set(
    clock: Clock, step_s: float
) -> None:
    it = entry("--child")
    engine = await build_launcher(it).start(ignore)
    as_before()
    clock.step(step_s)
    adopted = await build_launcher(it).adopt()
    assert adopted is not None
    assert adopted.pid == engine.pid
    as_before()
    clock.step(-2 * step_s)
    assert await asyncio.to_thread(sweep, paths.engine_records()) == ["m"]
    assert gone(engine.pid)


async def test_children_of_an_older_versions_record_are_ended_though_their_engine_is_dead() -> None:
    engine = await build_launcher(entry("--child")).start(ignore)
    assert isinstance(engine, Child)
    as_before()
    os.kill(engine.pid, signal.SIGKILL)
    await engine.exited()
    assert len(engine.pids()) == 1
    assert await asyncio.to_thread(sweep, paths.engine_records()) == ["m"]
    assert engine.pids() == frozenset()


async def test_a_stranger_with_the_pid_of_an_older_versions_record_is_left_alone() -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    Record("m", stranger.pid, Birth.of(stranger.pid), "x", 1).write(paths.engine_records())
    as_before(created=psutil.Process(stranger.pid).create_time() - 10_000)
    assert await build_launcher(entry()).adopt() is None
    assert sweep(paths.engine_records()) == []
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_sweeping_ends_children_whose_engine_is_dead() -> None:
    engine = await build_launcher(entry("--child")).start(ignore)
    record = read_record(paths.engine_records(), "m")
    assert record is not None
    os.kill(engine.pid, signal.SIGKILL)
    await engine.exited()
    assert await asyncio.to_thread(sweep, paths.engine_records()) == ["m"]
    assert session(record.pid, record.born) == []


async def test_engines_do_not_see_the_gateways_secrets() -> None:
    engine = await build_launcher(entry()).start(ignore)
    seen = psutil.Process(engine.pid).environ()
    assert seen["ENGINE_KEY"] == "key-of-the-engines"  # the YAML hands it over
    assert not {"LITELLM_MASTER_KEY", "ROUNDHOUSE_ENGINE_KEY"} & seen.keys()
    await engine.stop(force=True)


async def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(LaunchError, match=r"\$\{NOT_THERE\}, which is not set"):
        await build_launcher(entry("${NOT_THERE}")).start(ignore)


async def test_missing_weights_are_said_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", "/bin/true")
    spec = {"kind": "vllm", "port": 8000, "model": "/nowhere/weights"}
    it = ModelEntry.model_validate({"name": "m", "served_name": "m", "api_base": "", "device": "d", "launcher": spec})
    with pytest.raises(LaunchError, match="no weights in /nowhere/weights"):
        await build_launcher(it).start(ignore)


def test_logs_are_rotated_and_kept_short(home: Path) -> None:
    path = home / "engine-m.log"
    for number in range(6):
        path.write_text(str(number))
        logs.rotate(path)
    assert sorted(p.name for p in home.glob("engine-m.log*")) == [f"engine-m.log.{n}" for n in (1, 2, 3)]
    assert (home / "engine-m.log.1").read_text() == "5"
    with path.open("ab") as writer:
        writer.write(b"x" * (logs.MAX_BYTES + 1))
        writer.flush()
        logs.truncate_if_long(path)
        writer.write(b"goes on\n")
        writer.flush()
        assert path.read_bytes() == b"goes on\n"
