"""Names of models in the headers of answers. Pure.

LiteLLM puts a model's names into headers, whose signs are those of Latin-1: any other name, and the answer was lost.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

GROUP = "x-litellm-model-group"
"""The header that has the name in the YAML."""


def is_safe(name: str) -> bool:
    """Whether a header can have this name as it is."""
    return all(ord(sign) < 256 for sign in name)


def safe(name: str) -> str:
    """The name as a header can have it: percent-encoded, if need be."""
    return name if is_safe(name) else quote(name)


def made_safe(fields: MutableMapping[str, Any], *names: str) -> dict[str, str]:
    """Make the values of ``names`` safe, in place; those that were changed."""
    changed = {name: safe(fields[name]) for name in names if not is_safe(str(fields.get(name) or ""))}
    fields.update(changed)
    return changed
