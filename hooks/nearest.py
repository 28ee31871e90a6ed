"""The names that a client may have meant, for one that no model has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

ALL = frozenset({"all-proxy-models", "all-team-models"})
"""What LiteLLM writes for a key that may use every model; an empty list means the same."""

MOST = 2


def nearest(name: str, known: Iterable[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Those of the ``known`` names that are most like ``name``, of a key whose models are ``allowed``."""
    every = not allowed or not ALL.isdisjoint(allowed)
    names = {it.casefold(): it for it in known if every or it in allowed}
    return tuple(names[it] for it in get_close_matches(name.casefold(), names, n=MOST))
