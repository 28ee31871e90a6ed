"""A stand-in for vLLM in an environment of its own: the engine host imports it, and forks fake servers.

Modules that have no file here are empty. ``FAKE_VLLM_IMPORT_S`` makes the import slow, ``FAKE_VLLM_CUDA``
makes it initialise a pretended CUDA, ``FAKE_VLLM_THREAD`` makes it leave a thread that runs until there is a file of
that name, ``FAKE_VLLM_IMPATIENT`` makes the host wait for no thread.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import threading
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
if thread_ends := os.environ.get("FAKE_VLLM_THREAD"):

    def linger():
        """As a thread that waits for a compiler does."""
        while not os.path.exists(thread_ends):
            time.sleep(0.01)  # a file has no event that Python's own library could wait for

    threading.Thread(target=linger, name="fake-build-reaper", daemon=True).start()
server = sys.modules.get("roundhouse_host.server")  # a stock start has none
if server is not None and os.environ.get("FAKE_VLLM_IMPATIENT"):
    server.FIT_S = server.THREAD_S = 0.0
deadline = time.monotonic() + float(os.environ.get("FAKE_VLLM_IMPORT_S", "0"))
while time.monotonic() < deadline:  # as an import does: it works, and a stopped process does not get on
    pass
