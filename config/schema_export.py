"""``python -m roundhouse.config.schema_export``: the JSON Schema by which editors check the YAML.

Strict for our part; LiteLLM's keys are left to LiteLLM.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from roundhouse.config.schema import CommandLauncher, ResidencySettings, VllmLauncher

FILE = Path(__file__).with_name("roundhouse.schema.json")


def schema() -> dict[str, Any]:
    """The schema of the whole YAML."""
    launcher = TypeAdapter(VllmLauncher | CommandLauncher).json_schema(ref_template="#/$defs/{model}")
    residency = ResidencySettings.model_json_schema(ref_template="#/$defs/{model}")
    definitions = {**launcher.pop("$defs", {}), **residency.pop("$defs", {})}
    info = {"type": "object", "properties": {"launcher": launcher}}
    model = {
        "type": "object",
        "required": ["model_name", "litellm_params"],
        "properties": {
            "model_name": {"type": "string"},
            "litellm_params": {"type": "object", "required": ["model"]},
            "model_info": info,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Roundhouse",
        "type": "object",
        "required": ["model_list"],
        "properties": {"model_list": {"type": "array", "minItems": 1, "items": model}, "residency": residency},
        "$defs": definitions,
    }


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
