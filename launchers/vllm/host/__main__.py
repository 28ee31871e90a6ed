"""``python -P launchers/vllm/host/__main__.py OPTIONS``: run by its path, for nothing of ours is installed here."""

import importlib
import importlib.util
import sys
from pathlib import Path


def _by_path() -> int:
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "roundhouse_host", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return int(importlib.import_module("roundhouse_host.server").main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(_by_path())
