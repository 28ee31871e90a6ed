"""What `./roundhouse` says when it cannot: one line, exit code 1, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import Checkout, make_checkout

pytestmark = pytest.mark.integration


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def _stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _bare_path(folder: Path) -> Path:
    """A PATH with what a POSIX script needs and no Python."""
    folder.mkdir()
    for name in ("sh", "dirname", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def _one_line(code: int, out: str, err: str) -> str:
    assert (code, out) == (1, "")
    lines = [line for line in err.splitlines() if " s  " not in line]  # without the progress
    assert len(lines) == 1, err
    assert lines[0].startswith("roundhouse: ")
    return lines[0]


def test_without_a_new_enough_python_it_says_which_it_needs(checkout: Checkout, tmp_path: Path) -> None:
    path = _bare_path(tmp_path / "bin")
    _stub(path, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    _stub(path, "python3", "exit 1")
    line = _one_line(*checkout.run("up", PATH=str(path)))
    assert "Python 3.11, 3.12 or 3.13" in line


def test_the_newest_python_that_really_runs_is_taken(checkout: Checkout, tmp_path: Path) -> None:
    path = _bare_path(tmp_path / "bin")
    _stub(path, "python3.13", "exit 127")
    for version in ("3.12", "3.11"):
        _stub(path, f"python{version}", f'[ "$2" = -c ] && exit 0; echo took {version} "$@"')
    code, out, _ = checkout.run("status", PATH=str(path))
    assert code == 0
    assert out.startswith("took 3.12 -I -S")
    assert out.rstrip().endswith("status")


def test_a_chosen_python_that_does_not_work_is_named(checkout: Checkout) -> None:
    assert "/nowhere/python" in _one_line(*checkout.run("up", ROUNDHOUSE_BASE_PYTHON="/nowhere/python"))


def test_without_network_it_says_so(checkout: Checkout) -> None:
    del checkout.environment["PIP_NO_INDEX"]
    dead = {"PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    line = _one_line(*checkout.run("status", **dead, PIP_NO_CACHE_DIR="1"))
    assert "proxy: the package index cannot be reached" in line
    assert "check the network" in line


def _in_small_tmpfs(checkout: Checkout, options: str, before: str) -> tuple[int, str, str]:
    """Run the bootstrap in a copy on a tmpfs that only this command sees."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("mounting needs root")
    place = checkout.root.parent / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o {options} tmpfs {place} && cp -a {checkout.root} {place}/c"
    script = f"{mount} && {before} {place}/c/roundhouse status"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=checkout.environment, capture_output=True, text=True, check=False
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not allowed here")
    return done.returncode, done.stdout, done.stderr


def test_a_read_only_folder_is_named(checkout: Checkout) -> None:
    place = checkout.root.parent / "small"
    line = _one_line(*_in_small_tmpfs(checkout, "size=50m", f"mount -o remount,ro {place} &&"))
    assert f"cannot write {place}/c/" in line


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(checkout: Checkout) -> None:
    line = _one_line(*_in_small_tmpfs(checkout, "size=50m", ""))
    assert "no space left for the set-up: it needs about" in line


def test_a_disk_that_fills_up_on_the_way_is_told(checkout: Checkout) -> None:
    begun = f"mkdir {checkout.root.parent}/small/c/.venv &&"  # a part that was begun is not measured again
    line = _one_line(*_in_small_tmpfs(checkout, "size=4m", begun))
    assert "no space left" in line


def test_a_secret_that_is_empty_is_named(checkout: Checkout) -> None:
    (checkout.root / ".env").write_text("REDIS_PASSWORD=\n")
    assert "line 1: REDIS_PASSWORD is empty" in _one_line(*checkout.run("up", ROUNDHOUSE_ENGINE_PYTHON=sys.executable))
