"""When an environment counts as complete, and what is installed again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from roundhouse.deploy.setup import engine, environment
from roundhouse.deploy.setup.environment import Environment
from roundhouse.deploy.setup.errors import SetupError


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "x.txt").write_text("a==1\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", requirements)
    folder = tmp_path / "env"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    return Environment(folder)


def test_it_is_complete_only_once_it_was_finished(made: Environment) -> None:
    assert not made.complete("proxy", ("x.txt",))
    made.finish("proxy", ("x.txt",))
    assert made.complete("proxy", ("x.txt",))
    assert not made.complete("dev", ("x.txt",))


def test_it_is_not_complete_when_the_lock_changes(made: Environment) -> None:
    made.finish("proxy", ("x.txt",))
    (environment.REQUIREMENTS / "x.txt").write_text("a==2\n")
    assert not made.complete("proxy", ("x.txt",))


def test_it_is_not_complete_when_its_python_has_gone(made: Environment) -> None:
    made.finish("proxy", ("x.txt",))
    made.python.unlink()
    made.python.symlink_to("/nowhere/python")
    assert not made.complete("proxy", ("x.txt",))


def test_it_is_not_complete_when_it_was_moved(made: Environment, tmp_path: Path) -> None:
    made.finish("proxy", ("x.txt",))
    moved = tmp_path / "elsewhere"
    os.rename(made.folder, moved)
    assert not Environment(moved).complete("proxy", ("x.txt",))


def test_a_package_cut_off_while_it_was_installed_does_not_count(made: Environment) -> None:
    site = made.folder / "lib" / "python3.12" / "site-packages"
    for name, record in (("whole-1", "whole-1.dist-info/INSTALLER,sha256=x,4\n"), ("half-1", "half/__init__.py,,\n")):
        info = site / f"{name}.dist-info"
        info.mkdir(parents=True)
        (info / "RECORD").write_text(record)
    (site / "bare-1.dist-info").mkdir()
    assert made.has("whole", "1")
    assert not made.has("half", "1")
    made._drop_half_installed()
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


def test_a_torch_that_is_not_the_pinned_one_is_refused_and_removed(tmp_path: Path) -> None:
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(SetupError, match="not the one that was pinned"):
        engine.check_hash(wheel)
    assert not wheel.exists()


def test_a_torch_for_a_platform_without_a_pin_passes(tmp_path: Path) -> None:
    wheel = tmp_path / "torch-2.13.0+cpu-cp313-cp313-manylinux_2_28_aarch64.whl"
    wheel.write_bytes(b"")
    engine.check_hash(wheel)
