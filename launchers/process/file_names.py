"""The files of an engine: its log and its run record. Two models never share one, whatever they are called.

A model may be called ``acme/m`` or ``qwen:latest``, which no file can or should be called. Such a name is made plain,
and a digest of it tells it from others that look alike then.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 120
"""Characters of a name that is used as it stands; a file's may have 255 bytes, with what stands before and after."""

_PLAIN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")
_OTHER = re.compile(r"[^A-Za-z0-9._-]")


def stem(model: str) -> str:
    """What stands for ``model`` in the names of its files: most are called so that it is the name itself."""
    if _PLAIN.fullmatch(model):
        return model
    return f"{_OTHER.sub('_', model)[:LONGEST]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def older_stem(model: str) -> str:
    """What versions before took, for more than one model at times."""
    return model.replace("/", "_")


def log_name(model: str) -> str:
    """The name of an engine's log file."""
    return f"engine-{stem(model)}.log"
