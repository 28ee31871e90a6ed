"""The browser in which the tests use the admin UI: the system's, else Debian's Chromium, unpacked beside the tools.

Debian keeps one version of Chromium, the one without known holes, so it is not pinned.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from . import debian
from .pip import Part

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PACKAGES = ("chromium", "fonts-dejavu-core")
PROGRAM = Path("usr/lib/chromium/chromium")
LAYOUT = "1"  # raise it when what an older version of this module unpacked must be fetched anew
MISSING = "install Chromium or Google Chrome so that it is on PATH"
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts/truetype/dejavu</dir>
  <dir>{folder}/usr/share/fonts/truetype/dejavu</dir>
  <cachedir>{folder}/cache</cachedir>
</fontconfig>
"""
"""No other font: Chromium aborts when the match for an unknown family is a font that it cannot draw."""


@dataclass(frozen=True)
class Browser:
    """A program to run, and what its environment must have besides."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def find(tools: Path) -> Browser | None:
    """The browser to use; `tools` is the folder of fetched programs."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return Browser(Path(path))
    folder = tools / "browser"
    program = folder / PROGRAM
    if not (_is_stamped(folder) and os.access(program, os.X_OK)):
        return None
    libraries = sorted({str(file.parent) for file in folder.glob("**/lib*.so*")})
    fonts = str(folder / "fonts.conf")
    return Browser(program, {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "FONTCONFIG_FILE": fonts})


def complete(tools: Path) -> bool:
    """Is there a browser, or none that could be fetched?"""
    return find(tools) is not None or not debian.available()


def make(part: Part, tools: Path) -> None:
    """Fetch and unpack Chromium and the libraries that the system lacks.

    A failure is said and no more: all but the tests of the admin UI can do without, and those say why they fail.
    """
    folder = tools / "browser"
    part.show("fetching Chromium (130 MB)")
    if not (debian.fetch(part, PACKAGES, folder) and (folder / PROGRAM).exists()):
        part.board.say(f"browser: no Chromium from apt (all of it: {part.log}); for the admin UI's tests {MISSING}")
        return
    (folder / "fonts.conf").write_text(FONTS.format(folder=folder), encoding="utf-8")
    (folder / "stamp").write_text(_stamp(folder), encoding="utf-8")


def _is_stamped(folder: Path) -> bool:
    try:
        return (folder / "stamp").read_text(encoding="utf-8") == _stamp(folder)
    except OSError:
        return False


def _stamp(folder: Path) -> str:
    return f"{LAYOUT} {folder.resolve()}\n"
