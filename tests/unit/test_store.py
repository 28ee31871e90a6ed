"""What was measured is kept: for this engine on this card, whatever happens to the file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from roundhouse.footprint.need import GIB, Footprint
from roundhouse.residency.learned.calibration import Calibration, Guess, WaitKind
from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.measured import Measured
from roundhouse.residency.server.store import (
    ENTRIES,
    Learned,
    Store,
    keep_calibration,
    keep_callers,
    recall_calibration,
    recall_callers,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measurements.json"


def engine(awake: int = 12 * GIB, *, estimated: bool = False) -> Engine:
    measured = Measured(31.0, 1.5, {1: 1.1}, {1: 0.9, 2: 4.0})
    return Engine("m", "gpu0", footprint=Footprint(awake, GIB, 10 * GIB, estimated), measured=measured)


def test_what_was_measured_is_known_after_a_restart_on_the_same_card_only(path: Path) -> None:
    Store(path, "card A").keep(engine(), "flags")
    known = Store(path, "card A").recall("flags")
    assert known.measured == engine().measured
    assert known.footprint == engine().footprint
    assert Store(path, "card B").recall("flags") == Learned()
    assert Store(path, "card A").recall("other flags").footprint is None


def test_an_estimate_is_not_kept_as_if_it_had_been_measured(path: Path) -> None:
    store = Store(path)
    store.keep(engine(estimated=True), "flags")
    assert store.recall("flags").footprint is None
    assert store.recall("flags").start_s == 31.0


def test_an_engine_that_takes_more_while_it_loads_gets_that_again_at_its_next_start(path: Path) -> None:
    """Qwen2.5-32B-AWQ: 22.4 GiB while vLLM converts its weights, 21.3 afterwards."""
    it = Engine("m", "gpu0", footprint=Footprint(22 * GIB, GIB, loading=22 * GIB))
    it.holds(21 * GIB)
    assert it.footprint == Footprint(22 * GIB, GIB, estimated=False, loading=22 * GIB)
    store = Store(path)
    store.keep(it, "flags")
    again = Engine("m", "gpu0", footprint=store.recall("flags").footprint)
    again.holds(21 * GIB)
    assert again.footprint == it.footprint


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"engines": {"a": {"start_s": "soon"}}}'])
def test_a_broken_file_is_begun_anew_with_a_warning(path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(text)
    store = Store(path)
    assert "store_begun_anew" in caplog.text
    store.keep(engine(), "flags")
    assert Store(path).recall("flags").start_s == 31.0


def test_the_file_is_private_and_replaced_whole(path: Path) -> None:
    Store(path).keep(engine(), "flags")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    Store(path).keep(engine(), "flags")
    assert path.stat().st_ino == before  # nothing new: nothing written
    Store(path).keep(engine(9 * GIB), "flags")
    assert list(path.parent.iterdir()) == [path]


def test_the_oldest_entries_go_when_there_are_too_many(path: Path) -> None:
    store = Store(path)
    for number in range(ENTRIES + 3):
        store.keep(engine(), f"flags {number}")
    assert Store(path).recall("flags 2") == Learned()
    assert Store(path).recall("flags 3").start_s == 31.0


def test_a_folder_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "not there" / "measurements.json")
    store.keep(engine(), "flags")
    assert "store_not_written" in caplog.text
    assert store.recall("flags").start_s == 31.0


def test_callers_are_known_again_and_a_broken_file_is_begun_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callers = Callers()
    for moment in range(5):
        callers.asked("a", "m", 2.0 * moment)
        callers.ended("a", "m", 2.0 * moment + 1, 1.0)
    keep_callers(path, callers.dump())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert recall_callers(path).dump() == callers.dump() != Callers().dump()
    for text in ("", "[]", '{"callers": 3}'):
        path.write_text(text)
        assert recall_callers(path).dump() == Callers().dump()
    assert caplog.text.count("store_begun_anew") == 3


def test_errors_of_estimates_are_known_again_and_a_broken_file_is_begun_anew(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibration, guess, anew = Calibration(), Guess(WaitKind.SWITCH, 10.0, 20.0), Calibration()
    for moment in range(50):
        calibration.learn(calibration.forecast(guess, 300.0), 40.0, float(moment))
    keep_calibration(path, calibration.dump())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = recall_calibration(path)
    assert known.forecast(guess, 300.0).low_s == pytest.approx(calibration.forecast(guess, 300.0).low_s)
    assert known.forecast(guess, 300.0).low_s > 1.5 * anew.forecast(guess, 300.0).low_s
    assert not caplog.text
    for text in ("", "[]", '{"slot": 3}'):
        path.write_text(text)
        assert recall_calibration(path).dump() == anew.dump()
    assert caplog.text.count("store_begun_anew") == 3
