"""The engine host on CUDA: fit to fork, and a fork that gets as far as the driver's first real call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roundhouse.config.schema import VllmLauncher
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.launcher import VllmProcess, build_host
from tests.cuda import shipped
from tests.cuda.pretend import Machine
from tests.support.waiting import until

IMPORTS_S = 300.0
FAILS_S = 300.0
NO_CARD = "No CUDA GPUs are available"


@pytest.fixture
def drivers(pretend: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What engines inherit: the pretend drivers, and nobody's calls so far."""
    (pretend.folder / "calls").unlink(missing_ok=True)
    for name, value in pretend.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("drivers")
def test_the_host_asks_no_driver_and_its_fork_is_a_server_up_to_the_first_call_that_needs_a_card(
    pretend: Machine, hub: Path, home: Path
) -> None:
    entry = next(shipped.engines()).here(hub)

    async def fork() -> tuple[int, str]:
        host = build_host([entry])
        assert host is not None
        keeping = asyncio.create_task(host.run(), name="engine host")
        try:
            await until(lambda: host.state in ("ready", "unsupported"), "the host is ready", IMPORTS_S)
            return await start(host)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def start(host: EngineHost) -> tuple[int, str]:
        said = (home / "log" / "vllm-host.log").read_text()
        assert host.state == "ready", said
        assert "waiting for it" not in said, said  # no import has left a thread, so it was fit at once
        pid = host.pid
        assert pid is not None
        assert isinstance(entry.launcher, VllmLauncher)
        launcher = VllmProcess(entry, entry.launcher)
        spec = launcher.spec()
        child = await host.spawn(spec, spec.argv[3:])
        assert child.alive
        async with asyncio.timeout(FAILS_S):
            await child.exited()
        await child.stop(force=True)
        return pid, spec.log.read_text()

    pid, log = asyncio.run(fork())
    assert NO_CARD in log, log[-3000:]
    assert "Traceback" not in log.partition("EngineCore failed to start")[0], log[-3000:]
    callers = pretend.calls()
    assert pid not in {caller for caller, _ in callers}
    asked = [name for _, name in callers if name != "cuDriverGetVersion"]
    assert asked[0] == "cuInit", asked
