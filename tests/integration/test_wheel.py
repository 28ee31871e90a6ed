"""The wheel: built, installed outside the checkout, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support import nvml

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def _run(*argv: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ROUNDHOUSE_HOME")}
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git would commit, built where the build leaves nothing behind in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = _run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in names:
        path = ROOT / name
        if not name or not (path.is_file() or path.is_symlink()):
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        else:
            target.write_bytes(path.read_bytes())
    build = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    _run(sys.executable, "-m", "pip", "wheel", *build, "--wheel-dir", out, source, cwd=out)
    return next(out.glob("roundhouse-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which sees this one's other packages but not the checkout."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "/.venv" in name or name.endswith(".pyc")]
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    _run(sys.executable, "-m", "pip", "--python", python, *install, wheel, cwd=folder)
    # A line that is a path is added as it is; the .pth files in that folder are not read, the checkout's neither.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_every_module_imports_from_the_wheel(python: Path, tmp_path: Path) -> None:
    code = """
import importlib, pathlib, pkgutil, roundhouse
assert "site-packages" in roundhouse.__file__, roundhouse.__file__
names = [m.name for m in pkgutil.walk_packages(roundhouse.__path__, "roundhouse.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(*names)
"""
    names = _run(python, "-W", "ignore", "-c", code, cwd=tmp_path).split()
    for part in ("bench", "cli", "config", "deploy", "footprint", "hooks", "launchers", "plan", "proxy", "residency"):
        assert f"roundhouse.{part}" in names


NOT_IN_THE_WHEEL = {
    "deploy/requirements/*.in": "for the maintainer: what the locks are made of",
    "deploy/requirements/lock": "for the maintainer: makes the locks",
    "proxy/database/.npmrc": "for the maintainer: keeps addresses out of the lock",
}


def test_every_file_of_the_package_is_in_the_wheel_or_named_as_not_wanted(wheel: Path) -> None:
    tracked = _run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    parts = {path.name for path in (ROOT / "src" / "roundhouse").iterdir() if path.is_symlink()}
    ours = {name for name in tracked if name.partition("/")[0] in parts}
    with zipfile.ZipFile(wheel) as archive:
        there = {name.removeprefix("roundhouse/") for name in archive.namelist()}
    missing = {name for name in ours if name not in there}
    assert not {name for name in missing if not any(fnmatch(name, it) for it in NOT_IN_THE_WHEEL)}
    assert all(any(fnmatch(name, it) for name in missing) for it in NOT_IN_THE_WHEEL), "the list has more than that"


def test_the_command_is_there(python: Path, tmp_path: Path) -> None:
    assert "Usage: roundhouse" in _run(python.parent / "roundhouse", "--help", cwd=tmp_path)


def test_what_fits_is_told_without_a_card_and_a_network(python: Path, tmp_path: Path) -> None:
    argv = ["env", "HF_HUB_OFFLINE=1", python.parent / "roundhouse", "plan", "--device", "16GiB", "--json"]
    told = json.loads(_run(*argv, cwd=tmp_path))
    assert [it["fits"] for it in told["models"].values()] == [True, True, True]


def test_up_asks_the_card_before_it_makes_anything(python: Path, tmp_path: Path) -> None:
    driver = nvml.with_driver(nvml.pretend_driver(tmp_path / "nvml"), INIT=nvml.MISMATCH)
    home = tmp_path / "home"
    environment = {**os.environ, **driver, "ROUNDHOUSE_HOME": str(home)}
    environment.pop("ROUNDHOUSE_ENGINE_PYTHON", None)
    command = [python.parent / "roundhouse", "up"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("roundhouse: there is an NVIDIA card, but its driver does not answer")
    assert not [path for path in home.rglob("*") if path.name.startswith(".venv")]


def test_presets_and_locks_come_with_it(python: Path, tmp_path: Path) -> None:
    code = """
from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.deploy.setup.environment import REQUIREMENTS
for profile in ("cpu", "rtx5080"):
    print(profile, len(load_settings(paths.default_config_file(profile)).models))
assert (paths.project_root() / "Procfile").is_file(), paths.project_root()
assert (REQUIREMENTS / "engine-cpu.txt").is_file()
assert (REQUIREMENTS / "torch-cpu.sha256").is_file()
"""
    assert _run(python, "-W", "ignore", "-c", code, cwd=tmp_path).split("\n")[:2] == ["cpu 4", "rtx5080 3"]
