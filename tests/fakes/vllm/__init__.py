"""A stand-in for vLLM in an environment of its own: the engine host imports it, and forks fake servers.

Modules that have no file here are empty. ``FAKE_VLLM_IMPORT_S`` makes the import slow, ``FAKE_VLLM_CUDA``
makes it initialise a pretended CUDA, ``FAKE_VLLM_WSL`` makes it one that does not fork.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
import types


class _Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every other module of vLLM, empty."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith("vllm."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        """Nothing is in it."""


sys.meta_path.append(_Empty())
if os.environ.get("FAKE_VLLM_CUDA"):
    sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=lambda: True))
deadline = time.monotonic() + float(os.environ.get("FAKE_VLLM_IMPORT_S", "0"))
while time.monotonic() < deadline:  # as an import does: it works, and a stopped process does not get on
    pass
