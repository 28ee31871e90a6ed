"""``roundhouse`` as it is, but what ``up`` starts has a fake in the gateway's place: no LiteLLM is imported."""

from __future__ import annotations

from pathlib import Path

from roundhouse.cli import main, up
from roundhouse.config import paths

FAKE = Path(__file__).resolve().with_name("gateway.py")


def procfile() -> Path:
    """The Procfile with the fake in the gateway's line, in the home."""
    lines = (paths.project_root() / "Procfile").read_text().splitlines()
    lines = [line.replace("-m roundhouse.proxy", f"'{FAKE}'") for line in lines]
    assert sum(str(FAKE) in line for line in lines) == 1
    file = paths.home() / "Procfile"
    file.write_text("\n".join(lines) + "\n")
    return file


if __name__ == "__main__":
    up.procfile = procfile
    main.main()
