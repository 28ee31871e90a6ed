"""What grows on the disk has a bound: logs while they are written, logs of what is forgotten, what was compiled."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.exceptions import HTTPException

from roundhouse.deploy.services import honcho
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.vllm import compiled
from roundhouse.proxy import noise

DAY_S = 86400.0
NOW = 1_800_000_000.0


def aged(path: Path, days: float, size: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    for it in (path, path.parent):
        os.utime(it, (NOW - days * DAY_S,) * 2)
    return path


def test_the_stacks_log_turns_over_at_a_lines_end_and_keeps_the_newest(tmp_path: Path) -> None:
    """lemonade-sdk/lemonade#3326, reticlehq/reticle#319: logs of 200 GB."""
    path, before = tmp_path / "stack.log", (os.dup(1), os.dup(2))
    try:
        log = honcho.ShortLog(path, limit=1000)
        for number in range(5000):
            print(f"line {number:04}", file=log, flush=True)
    finally:
        for kept, standard in zip(before, (1, 2), strict=True):
            os.dup2(kept, standard)
            os.close(kept)
    files = [path.with_name(f"stack.log.{n}") for n in range(honcho.KEEP, 0, -1)] + [path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 1000 for file in files)
    lines = "".join(file.read_text() for file in files).splitlines()
    assert lines == [f"line {number:04}" for number in range(5000 - len(lines), 5000)]
    assert len(lines) >= honcho.KEEP * 100
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_full_disk_does_not_end_the_stack() -> None:
    log = honcho.ShortLog(Path("/dev/full"))
    assert print("lost", file=log, flush=True) is None


def test_honcho_says_through_the_log_what_its_services_said_and_ends_as_they_did(tmp_path: Path) -> None:
    procfile, path = tmp_path / "Procfile", tmp_path / "stack.log"
    procfile.write_text("a: for i in 1 2 3; do echo said $i; done; echo ärger >&2; exit 7\n")
    argv = [
        sys.executable,
        "-m",
        "roundhouse.deploy.services.honcho",
        str(path),
        "-e",
        os.devnull,
        "-f",
        str(procfile),
        "start",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    said = path.read_text()
    spoken = [line.split("| ")[1] for line in said.splitlines() if line.split()[1] == "a.1"]
    assert spoken == ["said 1", "said 2", "said 3", "ärger"]
    assert "a.1 stopped (rc=7)" in said


def test_an_engines_log_that_has_grown_too_long_keeps_its_end_and_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "engine-m.log"
    aged(tmp_path / "engine-m.log.1", 0, size=7)
    path.write_bytes(b"old" + b"x" * logs.MAX_BYTES)
    logs.truncate_if_long(path)
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert sizes == {"engine-m.log": 0, "engine-m.log.1": logs.MAX_BYTES, "engine-m.log.2": 7}


def test_logs_of_models_that_nobody_has_any_more_go_and_those_of_a_crash_stay(tmp_path: Path) -> None:
    gone = [aged(tmp_path / name, 31) for name in ("engine-old.log", "engine-m.log.2", "setup-20260101-1-engine.log")]
    left = [aged(tmp_path / name, 31) for name in ("engine-m.log", "stack.log.1", "vllm-host.log")]
    left += [aged(tmp_path / "engine-new.log", 29)]
    logs.sweep(tmp_path, {"engine-m.log"}, NOW)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in left)


def test_what_was_compiled_goes_once_it_is_too_much_by_when_it_was_used_last(tmp_path: Path) -> None:
    kib = 1024
    shelf = tmp_path / "vllm" / "torch_compile_cache"
    oldest = aged(shelf / "a" / "rank_0_0", 40, 64 * kib)
    older = aged(tmp_path / "triton" / "b" / "kernel", 30, 64 * kib)
    inner = aged(shelf / "torch_aot_compile" / "c" / "model", 20, 64 * kib)
    fresh = aged(tmp_path / "inductor" / "d" / "f.py", 1, 256 * kib)
    other = aged(tmp_path / "vllm" / "modelinfos" / "m.json", 90, kib)
    assert compiled.prune(tmp_path, NOW, limit=10**9) == 0
    assert compiled.prune(tmp_path, NOW, limit=420 * kib) >= 64 * kib
    assert [it.exists() for it in (oldest, older, inner, fresh, other)] == [False, True, True, True, True]
    compiled.prune(tmp_path, NOW, limit=0)
    assert [it.exists() for it in (older, inner, fresh, other)] == [False, False, True, True]
    assert compiled.prune(tmp_path / "none", NOW) == 0


def test_nothing_is_removed_from_caches_by_a_link_out_of_them(tmp_path: Path) -> None:
    outside = aged(tmp_path / "outside" / "file", 40, 10)
    shelf = tmp_path / "cache" / "triton"
    shelf.mkdir(parents=True)
    (shelf / "link").symlink_to(outside.parent)
    compiled.prune(tmp_path / "cache", NOW, limit=0)
    assert outside.exists()


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    """A logger as LiteLLM's are, with our filter."""
    it = logging.getLogger("quiet")
    it.filters.clear()
    it.addFilter(noise._without_traceback)
    return it


def failure(kind: str) -> Exception:
    request = httpx.Request("POST", "http://engine")
    match kind:
        case "refused":
            return HTTPException(503, "it does not fit")
        case "answered":
            error = RuntimeError("LiteLLM's own")
            error.__context__ = httpx.HTTPStatusError("500", request=request, response=httpx.Response(500))
            return error
        case _:
            error = AttributeError("None has no x")
            error.__cause__ = error.__context__ = ValueError("a surprise")
            error.__context__.__context__ = error  # a circle ends
            return error


@pytest.mark.parametrize(("kind", "traceback"), [("refused", False), ("answered", False), ("surprise", True)])
def test_an_answer_is_logged_without_a_traceback_and_a_surprise_with_it(
    kind: str, traceback: bool, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that an engine refuses wrote 11.8 kB: a traceback, twice."""
    try:
        raise failure(kind)
    except Exception:
        logger.exception("it failed")
    (record,) = caplog.records
    assert (record.exc_info is not None) == traceback
