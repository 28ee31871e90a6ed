"""Which processes are a home's: by their records, by descent and by their mark, whatever the clock says."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from roundhouse.config import paths
from roundhouse.deploy.services import keep as service
from roundhouse.deploy.services import pids
from tests.support.clock import Clock
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def server() -> Iterator[set[int]]:
    """A recorded server and its child: their pids."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as process:
        (child,) = wait_for(lambda: psutil.Process(process.pid).children(), "it has a child")
        service.write_record(_file("server"), process.pid)
        yield {process.pid, child.pid}
        for pid in (child.pid, process.pid):
            if psutil.pid_exists(pid):
                os.kill(pid, 9)


def _file(name: str) -> Path:
    return paths.run_dir() / f"{name}.pid"


def _ours() -> set[int]:
    return {process.pid for process in pids.ours()}


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_server_and_its_children_are_found_though_the_clock_was_set(
    server: set[int], monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    clock = Clock(monkeypatch)
    clock.step(step_s)
    assert _ours() == server
    clock.step(-step_s)
    assert _ours() == server


def test_children_are_found_while_the_clock_is_being_set(server: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    boot, readings = psutil.boot_time(), itertools.count(1)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot - 60 * next(readings))
    assert not any(psutil.Process(pid).children() for pid in server)  # which is why psutil is not asked
    assert _ours() == server


def test_the_record_of_an_older_version_is_understood(server: set[int]) -> None:
    pid = json.loads(_file("server").read_text())["pid"]
    created = psutil.Process(pid).create_time()
    _file("server").write_text(json.dumps({"pid": pid, "created": created}))
    assert _ours() == server
    _file("server").write_text(json.dumps({"pid": pid, "created": created - 10}))
    assert _ours() == set()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 1}', '{"pid": "x", "created": 1}', '{"pid": 1, "born": 1}'])
def test_a_broken_record_is_none(text: str) -> None:
    _file("server").write_text(text)
    assert pids.recorded("server") is None
    assert _ours() == set()


def test_what_carries_the_mark_is_ours_and_nobody_elses(home: Path) -> None:
    marks = (str(home), f"{home}-2")
    processes = [subprocess.Popen(["sleep", "60"], env={pids.MARK: mark, "PATH": os.defpath}) for mark in marks]
    try:
        wait_for(lambda: all(psutil.Process(it.pid).name() == "sleep" for it in processes), "both run")
        assert _ours() == {processes[0].pid}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_who_asks_and_the_processes_above_are_spared() -> None:
    service.write_record(_file("parent"), os.getppid())
    pids.record("me")
    assert pids.recorded("me") == psutil.Process()
    assert not _ours() & {os.getpid(), os.getppid()}


def test_all_of_it_is_ended_though_the_clock_was_set(server: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch).step(-3600)
    pids.end_all()
    assert _ours() == set()
    assert list(paths.run_dir().glob("*.pid")) == []
