"""Tells LiteLLM what our models can do: it then stands in ``/v1/models`` and ``/model/info``, and with each call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.vllm import abilities


def tell(deployments: Iterable[dict[str, Any]], models: Mapping[str, ModelEntry]) -> None:
    """Fill in the ``model_info`` of LiteLLM's ``deployments``. What the YAML says itself stays."""
    by_base = {entry.api_base: abilities.of_launcher(entry.launcher) for entry in models.values()}
    for deployment in deployments:
        info = deployment.setdefault("model_info", {})
        for name, value in by_base.get(str(deployment["litellm_params"].get("api_base")), {}).items():
            if info.get(name) is None:
                info[name] = value
