"""Which browser the tests of the admin UI get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roundhouse.deploy.setup import browser


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def unpacked(tools: Path) -> Path:
    """A Chromium as ``make`` leaves it."""
    folder = tools / "browser"
    program(folder / "usr/lib/chromium/chromium")
    for library in ("usr/lib/x86_64-linux-gnu/libx.so.1", "usr/lib/x86_64-linux-gnu/pulseaudio/libp-16.so"):
        program(folder / library)
    (folder / "stamp").write_text(browser._stamp(folder))
    return folder


def test_the_systems_browser_is_used_where_there_is_one(path: Path, tmp_path: Path) -> None:
    unpacked(tmp_path)
    own = program(path / "chromium")
    assert browser.find(tmp_path) == browser.Browser(own)


def test_an_unpacked_one_gets_its_libraries_and_fonts(path: Path, tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    found = browser.find(tmp_path)
    assert found is not None
    libraries = folder / "usr/lib/x86_64-linux-gnu"
    assert found.environment["LD_LIBRARY_PATH"].split(os.pathsep) == [str(libraries), str(libraries / "pulseaudio")]
    assert found.environment["FONTCONFIG_FILE"] == str(folder / "fonts.conf")


@pytest.mark.parametrize("lacks", ["stamp", "usr/lib/chromium/chromium"])
def test_one_that_was_cut_off_while_it_was_unpacked_does_not_count(path: Path, tmp_path: Path, lacks: str) -> None:
    (unpacked(tmp_path) / lacks).unlink()
    assert browser.find(tmp_path) is None


def test_one_that_was_moved_does_not_count(path: Path, tmp_path: Path) -> None:
    unpacked(tmp_path / "here")
    os.rename(tmp_path / "here", tmp_path / "there")
    assert browser.find(tmp_path / "there") is None


def test_where_there_is_no_apt_nothing_is_left_to_do(path: Path, tmp_path: Path) -> None:
    assert browser.complete(tmp_path)
    for name in ("apt-get", "dpkg-deb"):
        program(path / name)
    assert not browser.complete(tmp_path)
