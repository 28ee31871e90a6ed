"""The RAM that there is: the machine's, or less where a control group says so."""

from __future__ import annotations

from pathlib import Path

import psutil

from roundhouse.footprint.ram import machine_ram


def test_a_control_group_that_may_use_less_than_the_machine_has_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert machine_ram(tmp_path) == 2**30


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert machine_ram(tmp_path) == total
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_ram(tmp_path) == total
