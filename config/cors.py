"""Which pages in a browser may talk to the gateway: none, unless they are named."""

from __future__ import annotations

import os
import re

SETTING = "ROUNDHOUSE_CORS_ORIGINS"

NOBODY = ","
"""LiteLLM reads an empty list as "everybody", and this as an empty list."""

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s,?#]+")


def origins() -> str:
    """``ROUNDHOUSE_CORS_ORIGINS`` as LiteLLM takes it: origins with commas between them, or ``*``.

    Raises:
        ValueError: one is not an origin as browsers send it.
    """
    named = [it.strip() for it in os.environ.get(SETTING, "").split(",") if it.strip()]
    wrong = [it for it in named if it != "*" and not _ORIGIN.fullmatch(it)]
    if wrong:
        raise ValueError(f"{SETTING} has {wrong[0]!r}: an origin is scheme://host[:port], without a path")
    return ",".join(named) or NOBODY
