"""What keeps a machine from running vLLM for CUDA, and what to type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roundhouse.deploy.setup import fitness
from roundhouse.deploy.setup.card import Cards
from roundhouse.deploy.setup.fitness import GB, GIB, Disk, Machine
from roundhouse.deploy.setup.pythons import Python

CARDS = Cards(("NVIDIA GeForce RTX 5080",), ((12, 0),), (16 * GIB,), "580.95.05", (13, 0))
SYSTEMS = {"ubuntu": ("ubuntu", "debian"), "debian": ("debian",), "fedora": ("fedora",), "arch": ("arch",)}


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """A folder with Python's headers."""
    (tmp_path / "Python.h").write_text("")
    return tmp_path


@pytest.fixture
def fit(include: Path) -> Machine:
    """A machine with nothing amiss."""
    python = Python((3, 12, 3), "/usr/bin/python3.12", str(include))
    disk = Disk(Path("/home/me"), free=60 * GB, needed=40 * GB)
    return Machine(CARDS, SYSTEMS["ubuntu"], False, "/usr/bin/gcc", None, python, (disk,), 64 * GIB, weights=22 * GB)


def only(machine: Machine, **changes: Any) -> str:
    """The one fault of the machine with these changes."""
    (fault,) = fitness.faults(replace(machine, **changes))
    assert "\n" not in fault
    return fault


def of_driver(driver: str, cuda: tuple[int, int]) -> Cards:
    return replace(CARDS, driver=driver, cuda=cuda)


def of_capability(*found: tuple[int, int]) -> Cards:
    return replace(CARDS, capabilities=found, names=("A card",) * len(found))


def without_headers(executable: str) -> Python:
    return Python((3, 12, 3), executable, "/nowhere")


def test_a_machine_that_can_run_it_has_no_fault_and_no_note(fit: Machine) -> None:
    assert (fitness.faults(fit), fitness.notes(fit)) == ([], [])


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ("ubuntu", "sudo apt install nvidia-driver-580-open"),
        ("debian", "nvidia.com/drivers"),
        ("fedora", "sudo dnf install akmod-nvidia"),
        ("arch", "sudo pacman -Syu nvidia-open"),
    ],
)
def test_an_old_driver_is_named_with_the_one_that_is_needed(fit: Machine, system: str, line: str) -> None:
    fault = only(fit, cards=of_driver("570.133.07", (12, 8)), system=SYSTEMS[system])
    for text in ("570.133.07", "12.8", "580 or newer", line):
        assert text in fault


def test_on_wsl_the_driver_is_windows_business(fit: Machine) -> None:
    fault = only(fit, cards=of_driver("572.16", (12, 8)), wsl=True)
    assert "install it in Windows" in fault
    assert "apt" not in fault


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 2), (11, 0), (13, 0)])
def test_a_card_without_code_is_refused(fit: Machine, capability: tuple[int, int]) -> None:
    assert f"A card ({capability[0]}.{capability[1]})" in only(fit, cards=of_capability(capability))


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)])
def test_code_for_a_lower_capability_of_the_same_family_runs(fit: Machine, capability: tuple[int, int]) -> None:
    assert fitness.faults(replace(fit, cards=of_capability(capability))) == []


def test_one_of_two_cards_is_enough(fit: Machine) -> None:
    assert fitness.faults(replace(fit, cards=of_capability((6, 1), (8, 6)))) == []


@pytest.mark.parametrize(
    ("system", "compiler", "headers"),
    [
        (("ubuntu", "debian"), "'sudo apt install gcc'", "'sudo apt install python3.12-dev'"),
        (("rocky", "rhel", "centos", "fedora"), "'sudo dnf install gcc'", "'sudo dnf install python3.12-devel'"),
        (("manjaro", "arch"), "'sudo pacman -S gcc'", "'sudo pacman -S python'"),
        (("suse", "suse"), "'sudo zypper install gcc'", "'sudo zypper install python312-devel'"),
        (("nixos",), "install gcc", "set ROUNDHOUSE_BASE_PYTHON"),
        ((), "install gcc", "set ROUNDHOUSE_BASE_PYTHON"),
    ],
)
def test_a_missing_package_is_named_as_the_distribution_names_it(
    fit: Machine, system: tuple[str, ...], compiler: str, headers: str
) -> None:
    assert compiler in only(fit, compiler=None, system=system)
    assert headers in only(fit, python=without_headers("/usr/bin/python3.12"), system=system)


def test_headers_of_a_python_that_no_package_brought_are_no_packages(fit: Machine) -> None:
    fault = only(fit, python=without_headers("/home/me/.pyenv/versions/3.12.3/bin/python3.12"))
    assert "apt" not in fault
    assert "ROUNDHOUSE_BASE_PYTHON" in fault


def test_a_compiler_that_was_chosen_and_is_not_there_is_named(fit: Machine) -> None:
    assert "CC says 'icc'" in only(fit, compiler=None, chosen_compiler="icc")


def test_each_full_disk_is_a_fault_of_its_own(fit: Machine) -> None:
    disks = (Disk(Path("/here"), 8 * GB, 17 * GB), Disk(Path("/there"), 9 * GB, 22 * GB), Disk(Path("/ok"), 1, 1))
    found = fitness.faults(replace(fit, disks=disks))
    assert [line.split(" needs about ")[0] for line in found] == ["disk: /here", "disk: /there"]
    assert "17 GB, and 8.0 GB are free" in found[0]


def test_ram_is_a_fault_only_where_no_engine_runs(fit: Machine) -> None:
    assert "RAM: 3.0 GiB" in only(fit, ram=3 * GIB)
    assert fitness.faults(replace(fit, ram=8 * GIB)) == []


def test_ram_in_which_not_all_models_can_sleep_is_a_note(fit: Machine) -> None:
    (note,) = fitness.notes(replace(fit, ram=32 * GIB))
    assert "17 GB" in note
    assert "22 GB" in note
    assert ".wslconfig" not in note


def test_on_wsl_a_note_and_a_fault_of_ram_say_how_to_have_more(fit: Machine) -> None:
    assert "[wsl2]" in fitness.notes(replace(fit, ram=16 * GIB, wsl=True))[0]
    assert "[wsl2]" in only(fit, ram=2 * GIB, wsl=True)


def test_all_faults_are_said_at_once(fit: Machine) -> None:
    broken = Machine(
        cards=replace(of_capability((6, 1)), driver="570.86", cuda=(12, 8)),
        system=fit.system,
        wsl=False,
        compiler=None,
        chosen_compiler=None,
        python=without_headers("/usr/bin/python3.12"),
        disks=(Disk(Path("/x"), 8 * GB, 39 * GB),),
        ram=2 * GIB,
    )
    found = fitness.faults(broken)
    assert [line.split(":")[0] for line in found] == [
        "driver",
        "card",
        "C compiler",
        "Python's headers",
        "disk",
        "RAM",
    ]
    assert str(fitness.Unfit(found)).count("\n") == len(found)


def test_folders_on_one_file_system_share_what_is_free(tmp_path: Path) -> None:
    (disk,) = fitness._file_systems([(tmp_path / "not" / "yet", 3.0), (tmp_path, 4.0)])
    assert disk.needed == 7.0
    assert disk.free > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=ubuntu\nID_LIKE="debian"\n', ("ubuntu", "debian")),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', ("suse", "suse", "suse")),
        ("NAME=Odd\n", ()),
    ],
)
def test_the_system_is_known_by_its_own_name_and_those_it_is_like(
    text: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "os-release").write_text(text)
    assert fitness._system(tmp_path / "os-release") == expected
    assert fitness._system(tmp_path / "missing") == ()
