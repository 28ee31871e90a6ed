"""What the user sees while a set-up runs."""

from __future__ import annotations

import io
from pathlib import Path

from roundhouse.deploy.setup.pip import Meter
from roundhouse.deploy.setup.progress import Board


def test_pips_output_becomes_counts_and_sizes(tmp_path: Path) -> None:
    meter = Meter(3, tmp_path)
    meter.feed("Ignoring colorama: markers 'sys_platform == \"win32\"' don't match your environment\n")
    meter.feed("WARNING: Location 'file:///somewhere' is ignored\n")
    meter.feed("Collecting aiohttp==3.14.0 (from -r proxy.txt (line 1))\n")
    meter.feed("  Downloading aiohttp-3.14.0-cp311-manylinux_x86_64.whl (1.7 MB)\n")
    assert meter.text() == "fetched 1/2 packages, aiohttp (1.7 MB)"
    meter.feed("Collecting attrs==25.1 (from -r proxy.txt (line 9))\n")
    assert meter.text() == "fetched 2/2 packages"


def test_while_installing_it_counts_what_is_there(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    (site / "a-1.dist-info").mkdir(parents=True)
    meter = Meter(4, tmp_path)
    meter.feed("Installing collected packages: a, b, c, d\n")
    assert meter.text() == "installed 1/4 packages"


def test_without_a_terminal_only_plain_lines_are_written() -> None:
    stream = io.StringIO()
    with Board(stream) as board:
        board.part("proxy", lambda: "fetched 1/2")
        board.say("engine: about 1 GB")
    assert stream.getvalue() == "roundhouse: engine: about 1 GB\n"
