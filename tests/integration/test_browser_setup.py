"""How the tests' browser is fetched, with an apt and a dpkg that only pretend."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from roundhouse.deploy.setup import browser
from roundhouse.deploy.setup.pip import Children, Part
from roundhouse.deploy.setup.progress import Board

pytestmark = pytest.mark.integration

APT = """#!/bin/sh
for word in "$@"; do
    case $word in
        --option=Dir::Cache::Archives=*) archives=${word#*Archives=} ;;
        install) : >"$archives/chromium_1_amd64.deb" ;;
    esac
done
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/lib/chromium"
printf '#!/bin/sh\\n' >"$3/usr/lib/chromium/chromium"
chmod 755 "$3/usr/lib/chromium/chromium"
"""
FAILS = "#!/bin/sh\necho 'E: Unable to locate package chromium'\nexit 100\n"


@pytest.fixture
def said() -> io.StringIO:
    """What the set-up says."""
    return io.StringIO()


@pytest.fixture
def part(tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Part]:
    """The part to make, on a system without a browser."""
    monkeypatch.setattr(browser, "NAMES", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    with Board(said) as board, Path(os.devnull).open() as lock:
        yield Part("browser", tmp_path / "log", board, Children(lock.fileno()))


def pretend(folder: Path, **programs: str) -> None:
    for name, text in programs.items():
        file = folder / "bin" / name.replace("_", "-")
        file.write_text(text)
        file.chmod(0o755)


def test_what_apt_downloads_is_unpacked_and_then_used(part: Part, tmp_path: Path) -> None:
    pretend(tmp_path, apt_get=APT, dpkg_deb=DPKG)
    browser.make(part, tmp_path / "tools")
    found = browser.find(tmp_path / "tools")
    assert found is not None
    assert found.program == tmp_path / "tools/browser/usr/lib/chromium/chromium"
    assert os.listdir(tmp_path / "tools") == ["browser"]


@pytest.mark.parametrize("broken", [{"apt_get": FAILS, "dpkg_deb": DPKG}, {"apt_get": APT, "dpkg_deb": FAILS}])
def test_a_failure_is_said_in_a_line_and_the_set_up_goes_on(
    part: Part, tmp_path: Path, said: io.StringIO, broken: dict[str, str]
) -> None:
    pretend(tmp_path, **broken)
    browser.make(part, tmp_path / "tools")
    assert browser.find(tmp_path / "tools") is None
    lines = said.getvalue().splitlines()
    assert len(lines) == 1
    assert str(tmp_path / "log") in lines[0]
    assert "install Chromium" in lines[0]


def test_an_interrupted_fetch_is_begun_again(part: Part, tmp_path: Path) -> None:
    pretend(tmp_path, apt_get=APT, dpkg_deb=DPKG)
    for left in ("browser/usr", "browser.apt/archives/partial"):
        (tmp_path / "tools" / left).mkdir(parents=True)
    browser.make(part, tmp_path / "tools")
    assert browser.find(tmp_path / "tools") is not None
