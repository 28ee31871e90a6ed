"""Tells LiteLLM what our models can do: it then stands in ``/v1/models`` and ``/model/info``, and with each call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.launchers.base import LaunchError
from roundhouse.launchers.vllm import abilities, weights


def tell(deployments: Iterable[dict[str, Any]], models: Mapping[str, ModelEntry]) -> None:
    """Fill in the ``model_info`` of LiteLLM's ``deployments``. What the YAML says itself stays."""
    by_base = {entry.api_base: entry for entry in models.values()}
    for deployment in deployments:
        info = deployment.setdefault("model_info", {})
        entry = by_base.get(str(deployment["litellm_params"].get("api_base")))
        if entry is None:
            continue
        told = abilities.of_launcher(entry.launcher)
        if info.get("mode") == "embedding" and (folder := _folder(entry)) is not None:
            told |= abilities.of_files(folder)
        for name, value in told.items():
            if info.get(name) is None:
                info[name] = value


def _folder(entry: ModelEntry) -> Path | None:
    """Where the files of a vLLM model are, if they are here and none of its arguments overrules them."""
    launcher = entry.launcher
    if not isinstance(launcher, VllmLauncher) or any(word.startswith("--hf-overrides") for word in launcher.args):
        return None
    with suppress(LaunchError):
        return weights.local_folder(weights.name_of(entry.name, launcher))
    return None
