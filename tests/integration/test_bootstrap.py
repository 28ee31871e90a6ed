"""`./roundhouse COMMAND` on a fresh checkout: first run, second run, two at once, interrupted, moved."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.checkout import Checkout, make_checkout

pytestmark = pytest.mark.integration
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which a command has been run. Tests leave it as it is."""
    checkout = make_checkout(tmp_path_factory.mktemp("done"))
    code, out, err = checkout.run("status", "--json")
    assert (code, out) == (0, "ran status --json 42\n"), err
    assert "proxy: ready after" in err
    return checkout


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)  # another program tells nobody how far it is: asked often enough to kill it in time


def _at_work(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(root) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_a_second_run_says_nothing_and_costs_less_than_a_second(done: Checkout) -> None:
    began = time.monotonic()
    code, out, err = done.run("down")
    assert time.monotonic() - began < 1.0
    assert (code, out, err) == (0, "ran down 42\n", "")


def test_everything_is_byte_compiled_whatever_the_shell_says(done: Checkout) -> None:
    assert done.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert list(done.root.glob(".venv/lib/python3*/site-packages/__pycache__/tiny.*.pyc"))


def test_arguments_and_exit_codes_pass_unchanged(done: Checkout) -> None:
    assert done.run("x", "two words", "-a", "*")[1] == "ran x two words -a * 42\n"


def test_it_can_be_called_through_a_link_and_from_its_own_folder(done: Checkout, tmp_path: Path) -> None:
    (tmp_path / "rh").symlink_to(done.root / "roundhouse")
    for command, folder in ((str(tmp_path / "rh"), "/"), ("./roundhouse", str(done.root))):
        out = subprocess.check_output([command, "a"], cwd=folder, env=done.environment, text=True)
        assert out == "ran a 42\n"


def test_two_at_once_do_not_meet(fresh: Checkout) -> None:
    both = [fresh.start("one"), fresh.start("two")]
    ended = [(process.communicate(timeout=DEADLINE_S), process.returncode) for process in both]
    assert [(out, code) for (out, _), code in ended] == [("ran one 42\n", 0), ("ran two 42\n", 0)]
    assert sum("another set-up is at work" in err for (_, err), _ in ended) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_running_and_goes_on_when_run_again(fresh: Checkout, number: int) -> None:
    process = fresh.start("status")
    _until(lambda: (fresh.root / ".venv" / "pyvenv.cfg").exists())
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, "")
    assert "the same command goes on from here" in err
    _until(lambda: not _at_work(fresh.root))
    assert fresh.run("status")[:2] == (0, "ran status 42\n")


@pytest.mark.parametrize("moment", ["pyvenv.cfg", "bin/pip", "lib/python3*/site-packages/tiny.py"])
def test_killed_with_everything_it_started_it_goes_on_when_run_again(fresh: Checkout, moment: str) -> None:
    process = fresh.start("status")
    _until(lambda: bool(list((fresh.root / ".venv").glob(moment))))
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    for child in _at_work(fresh.root):
        child.kill()
    assert fresh.run("status")[:2] == (0, "ran status 42\n")


def test_a_package_that_is_not_the_pinned_one_is_refused(fresh: Checkout) -> None:
    with (fresh.wheels / "tiny-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"x")
    code, out, err = fresh.run("status")
    assert (code, out) == (1, "")
    assert "proxy: a package is not the one that was pinned" in err.splitlines()[-1]


def test_a_moved_checkout_is_set_up_again(done: Checkout, tmp_path: Path) -> None:
    moved = Checkout(tmp_path / "moved", done.wheels, done.environment)
    shutil.copytree(done.root, moved.root, symlinks=True)
    code, out, err = moved.run("status")
    assert (code, out) == (0, "ran status 42\n"), err
    assert (moved.root / ".venv/bin/roundhouse").read_text().count(str(moved.root)) == 1


def test_logs_are_kept_for_this_user_only(done: Checkout) -> None:
    home = done.root / ".roundhouse"
    assert os.stat(home).st_mode & 0o777 == 0o700
    assert list((home / "log").glob("setup-*-proxy.log"))
