"""The real models: fetched from the model hub into the user's usual cache, with progress, resumable.

Which models are complete is recorded in a file of ours: the hub's own cache also shows a half download as
a snapshot, and asking the hub would cost every later start a second and a network.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tqdm import tqdm

from roundhouse.config import proxies

Report = Callable[[str], None]
"""Takes one line of progress for people."""

CHECK_TIMEOUT_S = 3.0
PROGRESS_EVERY_S = 1.0
"""Often enough to see that it moves, seldom enough for a log file."""

NOT_SERVED = ("onnx/*", "*.onnx", "*.gguf", "original/*", "*.pth", "*.msgpack", "*.h5", "*.tflite", "*.ot")
"""Other formats of the same weights that repositories carry: they can be many times the size of the model."""

BESIDE_SAFETENSORS = ("*.bin", "*.pt")
"""What vLLM does not read when there are safetensors."""


class DownloadError(Exception):
    """A model cannot be fetched. The text says which, why and what to do."""


def hub_reachable(timeout: float = CHECK_TIMEOUT_S) -> bool:
    """Whether the model hub answers, found out within ``timeout`` seconds even when a name server hangs."""
    if constants.HF_HUB_OFFLINE or proxies.without_library(os.environ):
        return False
    answered = threading.Event()

    def ask() -> None:
        with suppress(httpx.HTTPError, OSError):
            answer = httpx.get(f"{constants.ENDPOINT}/api/models?limit=1", timeout=timeout)
            # A log-in page of the network in between redirects, or answers in HTML.
            if answer.status_code < 500 and "json" in answer.headers.get("content-type", ""):
                answered.set()

    asking = threading.Thread(target=ask, name="hub check", daemon=True)
    asking.start()
    asking.join(timeout)
    return answered.is_set()


class Downloads:
    """Which models of the hub are on this machine, recorded in the file ``record``."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def complete(self, model: str) -> bool:
        """Whether ``model`` (``owner/name``, or a folder) is here, whole."""
        if is_folder(model):
            return Path(model).expanduser().is_dir()
        return self.folder(model) is not None

    def folder(self, model: str) -> Path | None:
        """Where the downloaded ``model`` is, if it is here, whole."""
        folder = self._read().get(model)
        return Path(folder) if folder is not None and Path(folder).is_dir() else None

    def fetch(self, model: str, report: Report) -> None:
        """Download ``model`` if it is not complete; continues where an earlier, interrupted one stopped.

        Raises:
            DownloadError: the hub refuses or cannot be reached, the disk is full, or the folder is missing.
        """
        if self.complete(model):
            return
        if is_folder(model):
            raise DownloadError(f"model folder {model} is missing: correct the path in the configuration")
        try:
            folder = _snapshot(model, report)
        except Exception as error:
            raise _explain(model, error) from error
        self._write(self._read() | {model: folder})

    def _read(self) -> dict[str, str]:
        try:
            folders = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return folders if isinstance(folders, dict) else {}

    def _write(self, folders: dict[str, str]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(folders, indent=2) + "\n", encoding="utf-8")
        os.replace(new, self._record)


def is_folder(model: str) -> bool:
    """Whether ``model`` is a path on this machine, not a name on the hub (``owner/name``)."""
    return model.startswith(("/", "./", "../", "~")) or model.count("/") > 1


def unwanted(files: list[str]) -> list[str]:
    """The patterns of what not to download, for a repository that holds ``files``."""
    has_safetensors = any(fnmatch(file, "*.safetensors") for file in files)
    return [*NOT_SERVED, *(BESIDE_SAFETENSORS if has_safetensors else ())]


def _snapshot(model: str, report: Report) -> str:
    """Download and return the folder."""
    files = HfApi().model_info(model, files_metadata=True, timeout=30).siblings or []
    patterns = unwanted([file.rfilename for file in files])
    wanted = [f for f in files if not any(fnmatch(f.rfilename, pattern) for pattern in patterns)]
    total = sum(file.size or 0 for file in wanted)
    report(f"{model}: downloading {_size(total)} in {len(wanted)} files")
    folder = snapshot_download(model, ignore_patterns=patterns, tqdm_class=_meter(model, total, report))
    report(f"{model}: complete")
    return str(folder)


def _meter(model: str, total: int, report: Report) -> Any:
    """A tqdm class that reports lines instead of drawing bars; only bars that count bytes are of interest."""
    state = {"done": 0.0, "reported": time.monotonic()}

    class Meter(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self._bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if not self._bytes or not n:
                return
            state["done"] += n
            now = time.monotonic()
            if now - state["reported"] >= PROGRESS_EVERY_S:
                state["reported"] = now
                done = min(state["done"], total)
                report(f"{model}: {_size(done)} of {_size(total)} ({done / (total or 1):.0%})")

    return Meter


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _explain(model: str, error: Exception) -> DownloadError:
    """The one line that tells a user what to do."""
    match error:
        case GatedRepoError():
            text = "its owner wants you to accept terms: do so on its page at the hub, then set HF_TOKEN"
        case RepositoryNotFoundError():
            text = "the hub does not have it, or it is private: check the name, or set HF_TOKEN"
        case OfflineModeIsEnabled():
            text = "HF_HUB_OFFLINE is set and it is not complete on this machine"
        case ImportError() if proxies.without_library(os.environ):
            text = proxies.said(proxies.without_library(os.environ))
        case HfHubHTTPError() | LocalEntryNotFoundError() | httpx.HTTPError():
            text = f"the hub did not answer as it should ({_first_line(error)}); run it again to continue"
        case OSError():
            reason = error.strerror or _first_line(error)
            text = f"{reason} ({constants.HF_HUB_CACHE}; HF_HOME can name another place)"
        case _:
            text = _first_line(error)
    return DownloadError(f"cannot download model {model}: {text}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
