"""The engine host with real vLLM: as good as a stock start, many times as quick, and nothing is lost by kills."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from roundhouse.bench import start as bench
from roundhouse.config import paths
from roundhouse.launchers.process.records import runs
from roundhouse.launchers.vllm import launcher as vllm
from roundhouse.launchers.vllm.host.versions import KNOWN
from tests.acceptance.conftest import cpu_config, real_stack
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

HOST_S = 180.0
REQUIREMENTS = Path(__file__).resolve().parents[2] / "deploy" / "requirements"


def pinned(name: str = "engine-cpu.in") -> str:
    """The version of vLLM that the set-up installs."""
    (pin,) = [line for line in (REQUIREMENTS / name).read_text().splitlines() if line.startswith("vllm")]
    return pin.split("==")[1]


def test_the_host_knows_the_vllm_that_is_pinned() -> None:
    assert {pinned(name) for name in ("engine-cpu.in", "engine-cuda.in")} <= KNOWN.keys()


def test_every_module_and_name_that_the_host_uses_is_there() -> None:
    """On the CPU; what only CUDA has is left out."""
    row = KNOWN[pinned()]
    modules = [name for name in (*row.first(cpu=True), *row.then(cpu=True)) if name != "xgrammar"]
    code = f"""
import importlib, importlib.util
print([name for name in {modules!r} if importlib.util.find_spec(name) is None])
pairs = [name.split(":") for name in {row.names!r}]
print([name for module, name in pairs if not hasattr(importlib.import_module(module), name)])
"""
    done = subprocess.run([paths.engine_python(), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]
    assert row.server == vllm.SERVER


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Three pairs of starts of one text model and of the vision model."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("bench")
        config = home / "config.yaml"
        config.write_text(cpu_config(only=("qwen-0.5b", "smolvlm-256m")))
        patch.setenv("ROUNDHOUSE_HOME", str(home))
        patch.setenv("ROUNDHOUSE_CONFIG", str(config))
        patch.setenv("ROUNDHOUSE_MODELS", "tiny")
        yield bench.run(3, print)


@pytest.mark.parametrize("model", ["qwen-0.5b", "smolvlm-256m"])
def test_a_forked_engine_answers_the_same_and_many_times_as_soon(pairs: dict[str, Any], model: str) -> None:
    figures = pairs["models"][model]
    assert figures["same_answers"]
    assert figures["ratio_median"] < 0.2, figures  # 0.05-0.07 on a quiet machine


def test_host_and_engine_together_need_little_more_memory_than_a_stock_engine(pairs: dict[str, Any]) -> None:
    for figures in pairs["models"].values():
        assert figures["with_host_uss_ratio"] <= 1.3, figures


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with real_stack() as it:
        wait_for(lambda: host_of(it)["state"] == "ready", "the host is ready", HOST_S)
        yield it


def shared_memory() -> set[str]:
    """Segments and semaphores, but those of PostgreSQL servers, which belong to whoever else runs one here."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("PostgreSQL.")}


def host_of(stack: Stack) -> dict[str, Any]:
    it: dict[str, Any] = stack.status()["engine_host"]
    return it


@pytest.mark.timeout(7200)  # ``--storm 500`` takes most of an hour on a busy machine
def test_kills_of_engine_host_and_residency_lose_no_request_and_leave_nothing(
    stack: Stack, pytestconfig: pytest.Config
) -> None:
    """``--storm N`` makes it N starts; most of them are forks."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    segments = shared_memory()
    starts: int = pytestconfig.getoption("--storm")
    forks, waits = 0, []
    for number in range(starts):
        resident = stack.resident()
        model = rng.choice([name for name in stack.models if name != resident])
        what = rng.choices(["nothing", "engine", "host", "residency"], [80, 10, 3, 7])[0]
        if number % 16 == 3:
            what = ("engine", "host", "residency")[number // 16 % 3]  # each one, however short the storm
        kill(stack, what, resident)
        began = time.monotonic()
        response = ask(stack, model)
        waits.append(time.monotonic() - began)
        assert response.status_code == 200, (number, what, response.text)
        pid = stack.engine_pid(model)
        assert pid is not None
        with suppress(psutil.NoSuchProcess):
            forks += psutil.Process(pid).name().startswith("VLLM::")  # a stock server has no title
        if number % 50 == 0:
            print(f"{number} of {starts}: {forks} forks, {sorted(waits)[len(waits) // 2]:.2f} s median")
        if what == "host":
            wait_for(lambda: host_of(stack)["state"] == "ready", "another host is ready", HOST_S)
    assert forks >= 0.7 * starts
    assert stack.stop(keep_home=True) == []
    assert not list((stack.home / "run").glob("engine-*"))
    assert shared_memory() <= segments
    shutil.rmtree(stack.home)


def kill(stack: Stack, what: str, resident: str | None) -> None:
    """``kill -9`` of a part of the stack."""
    if what == "engine" and resident is not None:
        pid = stack.kill_engine(resident)
        wait_for(lambda: stack.engine_pid(resident) != pid, "residency has noticed")
    elif what == "host":
        pid = host_of(stack)["pid"]
        with suppress(psutil.NoSuchProcess):
            host = psutil.Process(pid)
            host.kill()
            wait_for(lambda: not runs(host), "the host is gone")
    elif what == "residency":
        stack.kill("residency")


def ask(stack: Stack, model: str) -> Any:
    if model == "bge-small":
        return stack.http.post("/v1/embeddings", json={"model": model, "input": f"{time.time_ns()}"})
    return stack.chat(model, f"{time.time_ns()}", max_tokens=2)
