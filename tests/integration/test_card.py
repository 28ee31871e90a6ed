"""What the set-up understands of a driver's answers: the pretend driver in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml

pytestmark = pytest.mark.integration

ASK = """
import json, pathlib, sys
from roundhouse.deploy.setup import card
card.PCI, card.DXG = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
try:
    found = card.find()
except card.CardError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps(found and vars(found)))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.pretend_driver(tmp_path_factory.mktemp("nvml"))


def asked(driver: Path | None, bus: Path, *, wsl: bool = False, **answers: str | int) -> Any:
    """What `card.find` says in a process with this driver: the cards, None, or the text of its error."""
    added = nvml.with_driver(driver, **answers) if driver else {}
    argv = [sys.executable, "-c", ASK, str(bus), os.devnull if wsl else "/nowhere"]
    done = subprocess.run(argv, env={**os.environ, **added}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """A machine's PCI bus with an NVIDIA card, and its sound."""
    for name, vendor, kind in (("01:00.0", "0x10de", "0x030000"), ("01:00.1", "0x10de", "0x040300")):
        (tmp_path / "bus" / name).mkdir(parents=True)
        (tmp_path / "bus" / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "bus" / name / "class").write_text(f"{kind}\n")
    return tmp_path / "bus"


def test_cards_are_described(driver: Path, bus: Path) -> None:
    assert asked(driver, bus, CARDS=2, CAPABILITY="8.9", NAME="RTX 4060", DRIVER="570.86", CUDA=12080) == {
        "names": ["RTX 4060", "RTX 4060"],
        "capabilities": [[8, 9], [8, 9]],
        "memory": [17094934528, 17094934528],
        "driver": "570.86",
        "cuda": [12, 8],
    }


def test_a_driver_without_a_card_is_no_card(driver: Path, tmp_path: Path) -> None:
    assert asked(driver, tmp_path, CARDS=0) is None


def test_a_library_that_came_with_other_packages_is_no_card(driver: Path, tmp_path: Path) -> None:
    assert asked(driver, tmp_path, INIT=nvml.NOT_LOADED) is None


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (nvml.MISMATCH, "reboot, or end what uses the card and type 'sudo rmmod"),
        (nvml.NOT_LOADED, "sudo modprobe nvidia"),
        (nvml.NO_PERMISSION, "ls -l /dev/nvidia"),
        (nvml.LOST, "off the bus"),
        (nvml.BLOCKED, "reboot"),
        (999, "nvidia-smi"),
    ],
)
def test_a_card_that_does_not_answer_is_an_error_with_its_remedy(
    driver: Path, bus: Path, answer: int, remedy: str
) -> None:
    text = asked(driver, bus, INIT=answer)
    assert text.startswith("there is an NVIDIA card, but its driver does not answer (")
    assert f"NVML error {answer})" in text
    assert remedy in text
    assert text.endswith("'up --profile cpu' does without the card")
    assert "\n" not in text


def test_a_card_may_fall_silent_after_the_driver_has_begun(driver: Path, bus: Path) -> None:
    assert "off the bus" in asked(driver, bus, DEVICE=nvml.LOST)


@pytest.mark.parametrize("answer", [nvml.MISMATCH, nvml.NOT_LOADED, nvml.BLOCKED])
def test_on_wsl_the_remedy_is_in_windows(driver: Path, tmp_path: Path, answer: int) -> None:
    text = asked(driver, tmp_path, wsl=True, INIT=answer)
    assert "wsl --shutdown" in text
    assert "modprobe" not in text
