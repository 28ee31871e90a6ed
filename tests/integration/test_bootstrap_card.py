"""`./roundhouse` on machines with an NVIDIA card: what is refused before anything is made, and which engine is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import nvml
from tests.support.checkout import Checkout, make_checkout

pytestmark = pytest.mark.integration

PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
UP = ("up", "--models", "tiny")  # weights have tests of their own


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.pretend_driver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout whose `up` needs an engine and a Redis that is there; its engines take little room."""
    made = make_checkout(tmp_path)
    made.environment["REDIS_URL"] = "redis://127.0.0.1:9"
    steps = made.root / "deploy" / "setup" / "steps.py"
    steps.write_text(steps.read_text().replace(": 16 * GB", ": 0.1 * GB").replace(": 5 * GB", ": 0.1 * GB"))
    made.environment["PATH"] = str(programs(tmp_path / "bin"))
    return made


def programs(folder: Path, *without: str, headers: str | None = None) -> Path:
    """A PATH with what the bootstrap needs, a compiler, and a Python that says its headers are in ``headers``."""
    folder.mkdir()
    for name in {"sh", "dirname", "readlink"} - set(without):
        (folder / name).symlink_to(shutil.which(name) or "")
    if "gcc" not in without:
        (folder / "gcc").symlink_to(sys.executable)  # being there is all that is asked of it
    include = folder if headers is None else Path(headers)
    if headers is None:
        (include / "Python.h").write_text("")
    base = getattr(sys, "_base_executable", sys.executable)
    version = " ".join(str(number) for number in sys.version_info[:3])
    (folder / PYTHON).write_text(
        f"#!/bin/sh\ncase $* in *posix_prefix*) printf '%s\\n' '{version} {base}' '{include}' ;;\n"
        f'*) exec "{base}" "$@" ;; esac\n'
    )
    (folder / PYTHON).chmod(0o755)
    return folder


def tree(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Every file and link below ``folder``, but for Python's caches: when it was changed and what is in it."""
    return {
        str(path): (path.lstat().st_mtime, b"" if path.is_symlink() else path.read_bytes())
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and (path.is_symlink() or path.is_file())
    }


def refused(checkout: Checkout, *argv: str, **environment: str) -> list[str]:
    """The lines with which `./roundhouse ARGV` is refused: at once, with nothing made, changed or fetched."""
    before = tree(checkout.root)
    code, out, err = checkout.run(*argv, **environment)
    assert (code, out) == (1, ""), err
    assert tree(checkout.root) == before
    assert err.startswith("roundhouse: ")
    return err.splitlines()


def test_every_fault_is_said_at_once_and_nothing_is_made(checkout: Checkout, driver: Path, tmp_path: Path) -> None:
    poor = programs(tmp_path / "poor", "gcc", headers="/nowhere/include")
    old = nvml.with_driver(driver, DRIVER="570.133.07", CUDA=12080, CAPABILITY="6.1")
    first, *faults = refused(checkout, "up", **old, PATH=str(poor), HF_HOME=str(tmp_path))
    assert "cannot run vLLM on its NVIDIA card yet; nothing was downloaded" in first
    expected = ["driver: 570.133.07", "card: ", "C compiler: ", "Python's headers: /nowhere/include/Python.h"]
    for line, words in zip(faults, expected, strict=False):
        assert line.startswith(f"  - {words}")
    assert len([line for line in faults if "disk" not in line]) == len(expected)


def test_a_disk_too_small_for_packages_and_weights_is_a_fault(driver: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("mounting needs root")
    checkout, path, place = make_checkout(tmp_path), programs(tmp_path / "bin"), tmp_path / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=8g tmpfs {place} && cp -a {checkout.root} {place}/c"
    env = {**checkout.environment, **nvml.with_driver(driver), "HF_HOME": f"{place}/hub"}
    script = f"{mount} && PATH={path} {place}/c/roundhouse up"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not allowed here")
    (fault,) = done.stderr.splitlines()[1:]
    assert f"disk: {place}/c needs about 40 GB, and 8.6 GB are free" in fault
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("answer", [nvml.MISMATCH, nvml.LOST, nvml.NO_PERMISSION, 999])
def test_a_card_that_does_not_answer_is_not_the_cpus_business(checkout: Checkout, driver: Path, answer: int) -> None:
    (line,) = refused(checkout, *UP, **nvml.with_driver(driver, INIT=answer))
    assert "its driver does not answer" in line


@pytest.mark.timeout(300)  # three environments, on a machine that may be slow
def test_each_engine_has_its_folder_and_a_silent_card_leaves_both_alone(checkout: Checkout, driver: Path) -> None:
    cuda, cpu = checkout.root / ".venv-engine-cuda", checkout.root / ".venv-engine"
    good, bad = nvml.with_driver(driver), nvml.with_driver(driver, INIT=nvml.MISMATCH)
    code, out, err = checkout.run(*UP, **good)
    assert (code, out) == (0, "ran up --models tiny 42\n"), err
    assert not cpu.exists()
    made = tree(cuda)
    assert f"{cuda}/roundhouse-card.stamp" in made

    assert "'sudo rmmod" in refused(checkout, *UP, **bad)[0]
    assert checkout.run("status", **bad)[:2] == (0, "ran status 42\n")  # needs no engine
    (line,) = refused(checkout, *UP)  # no driver at all
    assert "was made for NVIDIA GeForce RTX 5080, driver 580.95.05" in line
    old = nvml.with_driver(driver, CUDA=12080, DRIVER="570.133.07")
    assert any("580 or newer" in line for line in refused(checkout, *UP, **old))

    code, _, err = checkout.run(*UP, "--profile", "cpu", **bad)
    assert code == 0, err
    assert (cpu / "bin" / "python").exists()
    assert tree(cuda) == made

    code, _, err = checkout.run(*UP, **good)
    assert (code, err) == (0, "")
    assert tree(cuda) == made


@pytest.mark.timeout(300)
def test_the_cuda_tests_have_their_engine_on_a_machine_without_a_card(checkout: Checkout) -> None:
    dev = checkout.root / "deploy" / "requirements" / "dev.txt"
    dev.write_bytes((dev.parent / "proxy.txt").read_bytes())
    code, _, err = checkout.run("test", "-m", "cuda")
    assert code == 0, err
    assert (checkout.root / ".venv-engine-cuda" / "bin" / "python").exists()
    assert not (checkout.root / ".venv-engine").exists()
