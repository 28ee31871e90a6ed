"""What every start of a Python runs unasked: nothing in our environments but what stands here word for word.

A package that was tampered with brings a `.pth` file or a `sitecustomize`, and has it in its own list of files and
hashes: that a package of the lock brought it says nothing. So each is named here with its text.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("sitecustomize", "usercustomize")
ALLOWED = {
    # The checkout on the path: written by the set-up.
    "roundhouse.pth": f"{ROOT / 'src'}\n",
    # setuptools: its own distutils in place of the one that Python has no more.
    "distutils-precedence.pth": (
        "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; "
        "enabled and __import__('_distutils_hack').add_shim(); \n"
    ),
    # nvidia-cutlass-dsl, which vLLM for CUDA needs: its modules lie in a folder of its package.
    "nvidia_cutlass_dsl_packages.pth": (
        "import sys, os, nvidia_cutlass_dsl; "
        "sys.path.insert(0, os.path.join(nvidia_cutlass_dsl.__path__[0], 'dsl_packages'))"
    ),
}


def sites() -> list[Path]:
    """The site-packages of the gateway's environment and of the engines' that are there."""
    return sorted(ROOT.glob(".venv*/lib/python3*/site-packages"))


def unexpected(site: Path) -> list[str]:
    """The names in `site` that Python would run at its start and nobody has looked at."""
    found = []
    for path in site.iterdir():
        if path.name.endswith(".pth"):
            if path.read_text(encoding="utf-8", errors="replace") != ALLOWED.get(path.name):
                found.append(path.name)
        elif path.name.split(".")[0] in MODULES:
            found.append(path.name)
    return sorted(found)


def test_the_gateways_environment_is_among_those_that_are_looked_at() -> None:
    assert ".venv" in [site.relative_to(ROOT).parts[0] for site in sites()]


@pytest.mark.parametrize("site", sites(), ids=lambda site: site.relative_to(ROOT).parts[0])
def test_no_package_runs_anything_at_the_start_of_python_that_is_not_known(site: Path) -> None:
    assert unexpected(site) == []


@pytest.mark.parametrize("site", sites(), ids=lambda site: site.relative_to(ROOT).parts[0])
def test_an_environment_sees_no_packages_of_the_system(site: Path) -> None:
    """Theirs would run too."""
    assert "include-system-site-packages = false" in (site.parents[2] / "pyvenv.cfg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "cook.pth",
        ".pth",
        "distutils-precedence.pth",
        "roundhouse.pth",
        "sitecustomize.py",
        "usercustomize.cpython-311-x86_64-linux-gnu.so",
    ],
)
def test_a_file_that_runs_at_the_start_is_found_by_its_name_or_its_text(tmp_path: Path, name: str) -> None:
    for known, text in ALLOWED.items():
        (tmp_path / known).write_text(text)
    (tmp_path / "litellm.py").touch()
    assert unexpected(tmp_path) == []
    with (tmp_path / name).open("a") as file:
        file.write("\nimport cook\n")
    assert unexpected(tmp_path) == [name]


def test_a_package_that_runs_at_the_start_is_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize").mkdir()
    assert unexpected(tmp_path) == ["sitecustomize"]
