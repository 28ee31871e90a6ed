"""When a process was started: by the kernel's count, whatever the clock says and the process is called."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from roundhouse.launchers.process import birth
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.records import Record, is_process, read_record, session
from tests.support.clock import Clock

ME = os.getpid()


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file with the boot's id, in the test's hands."""
    file = tmp_path / "boot_id"
    file.write_text("00000000-0000-0000-0000-000000000001\n")
    monkeypatch.setattr(birth, "BOOT_ID", file)
    birth.boot_id.cache_clear()
    yield file
    birth.boot_id.cache_clear()


def reboot(boot: Path) -> None:
    boot.write_text("00000000-0000-0000-0000-000000000002\n")
    birth.boot_id.cache_clear()


def old(pid: int, created: float) -> dict[str, object]:
    """A process as versions before wrote it."""
    return {"pid": pid, "created": created}


def test_it_is_the_kernels_count_since_the_boot() -> None:
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    by_psutil = psutil.Process().create_time() - psutil.boot_time()
    assert Birth.of(ME).ticks / birth.TICKS_PER_S == pytest.approx(by_psutil, abs=0.011)
    assert 0 < Birth.of(ME).ticks / birth.TICKS_PER_S < now_s
    assert len(Birth.of(ME).boot) == 36


def test_setting_the_clock_does_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, before, created = Clock(monkeypatch), Birth.of(ME), psutil.Process().create_time()
    clock.step(-3600)
    assert psutil.Process().create_time() == created - 3600  # or else nothing was tried
    assert Birth.of(ME) == before
    assert is_process(ME, before)


@pytest.mark.parametrize("name", [") S 1 (x", "a b", "))((", "(", ")", "a) R 1 2 3 4"])
def test_the_name_of_a_process_is_no_matter(name: str) -> None:
    comm, before = Path("/proc/self/comm"), Birth.of(ME)
    usual = comm.read_text().rstrip("\n")
    try:
        comm.write_text(name)
        assert f"({name})" in Path("/proc/self/stat").read_text()
        assert Birth.of(ME) == before
    finally:
        comm.write_text(usual)


def test_a_process_that_is_not_there_has_none() -> None:
    with pytest.raises(ProcessLookupError):
        Birth.of(2**22 + 1)  # above every pid that the kernel gives out


def test_after_another_boot_nobody_is_who_was_recorded(boot: Path, tmp_path: Path) -> None:
    Record("m", ME, Birth.of(ME), "x", 1).write(tmp_path)
    record = read_record(tmp_path, "m")
    assert record is not None
    assert record.alive
    reboot(boot)
    assert (record.alive, record.members()) == (False, [])
    assert session(os.getsid(0), Birth(record.born.boot, 0)) == []


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    mine = Birth.of(ME)
    for other in (Birth(mine.boot, mine.ticks + 1), Birth(mine.boot, mine.ticks - 1), Birth("", mine.ticks)):
        assert not is_process(ME, other)


def test_without_an_id_of_the_boot_the_ticks_have_to_do(boot: Path) -> None:
    boot.unlink()
    birth.boot_id.cache_clear()
    assert Birth.of(ME).boot == ""
    assert is_process(ME, Birth.of(ME))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("org/m", ME, Birth("b", 7), "x", 1, asleep=2, moving=True, probe=[0.5])
    record.write(tmp_path)
    assert read_record(tmp_path, "org/m") == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": "m", "pid": 1, "identity": "x", "port": 3}',
        '{"model": "m", "pid": 1, "born": 2.0, "identity": "x", "port": 3}',
        '{"model": "m", "pid": 1, "born": {"boot": "b"}, "identity": "x", "port": 3}',
        '{"model": "m", "pid": 1, "created": null, "identity": "x", "port": 3}',
    ],
)
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    assert read_record(tmp_path, "m") is None


def test_what_an_older_version_wrote_by_the_clock_is_understood() -> None:
    assert Birth.read(old(ME, psutil.Process().create_time())) == Birth.of(ME)
    assert Birth.read(old(ME, psutil.Process().create_time() + 0.04)) == Birth.of(ME)


@pytest.mark.parametrize("off_s", [1.0, -1.0, 3600.0, -3600.0, -1e9])
def test_by_the_clock_a_pid_that_is_used_again_is_somebody_else(off_s: float) -> None:
    assert not is_process(ME, Birth.read(old(ME, psutil.Process().create_time() + off_s)))
