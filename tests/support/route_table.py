"""The table of routes of the LiteLLM that is installed, as a request is matched with it."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.routing import Mount, WebSocketRoute


@dataclass(frozen=True)
class Route:
    """One of LiteLLM's. ``kind``: http, websocket or mount."""

    kind: str
    methods: frozenset[str]
    path: str
    match: Any = None


@functools.cache
def tables() -> tuple[Any, tuple[Route, ...], tuple[Route, ...]]:
    """LiteLLM's app, and its routes before and after it has loaded what it loads when that is first asked for."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it looks for prices on the network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litellm.proxy import _lazy_features
        from litellm.proxy.proxy_server import app

        before = tuple(table(app.router.routes))
        _lazy_features.register_all_features(app)
        after = tuple(table(app.router.routes))
    assert set(app.state.lazy_routes) == {it.module_path for it in _lazy_features.LAZY_FEATURES}, (
        "a feature cannot be loaded"
    )
    return app, before, after


def litellms() -> tuple[Route, ...]:
    return tables()[2]


def table(routes: Iterable[Any]) -> Iterator[Route]:
    """The routes in the order in which a request is matched with them."""
    from fastapi.routing import iter_route_contexts

    for it in iter_route_contexts(list(routes)):
        route = it._effective_route
        if isinstance(route, Mount):
            yield Route("mount", frozenset(), route.path, route.matches)
        elif isinstance(route, WebSocketRoute):
            yield Route("websocket", frozenset(), route.path, route.matches)
        else:
            assert it.methods, f"a kind of route that we do not know: {it.path} {type(it.original_route).__name__}"
            yield Route("http", frozenset(it.methods), str(it.path), route.matches)
