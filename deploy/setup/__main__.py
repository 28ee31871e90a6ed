"""`python deploy/setup COMMAND ...`: set up what COMMAND needs, then become it."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast


def _by_path() -> Callable[[list[str]], int]:
    """`main` of this package when it is run by its path, with no environment to import it from."""
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "roundhouse_setup", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return cast(Callable[[list[str]], int], importlib.import_module("roundhouse_setup.command").main)


if __name__ == "__main__":
    sys.exit(_by_path()(sys.argv[1:]))
