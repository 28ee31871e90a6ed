"""Our table of routes against that of the pinned LiteLLM: whoever takes another one decides about its new routes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

import pytest
from starlette.routing import Match

from roundhouse.proxy import served
from roundhouse.proxy.door import Answer, Door
from tests.support.route_table import Route, litellms, table, tables

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(240)]

VALUES = ("x", "mcp", "files", "v1", "a:b", "..", "key", "openai", "info")
"""What stands for a parameter: names that other routes begin or end with."""

LONG_VALUES = (*VALUES, "a/b", "v1/files", "../v1/files", "/v1/files", "openai/deployments/x", "x/files/content")
"""And for one that may have slashes."""


def undecided(routes: Iterable[Route]) -> list[str]:
    """The routes that are neither served nor refused by decision."""
    ours = set(served.served(keys=True))
    ours |= {("HEAD", path) for method, path in ours if method == "GET"}
    mounts = served.MOUNTED + served.MOUNTED_OF_UI
    refused = [served._below(path) for _, path in served.refused()]
    found = []
    for route in routes:
        if route.kind == "websocket":
            continue  # none is served, whatever its path
        if route.path in mounts if route.kind == "mount" else all((it, route.path) in ours for it in route.methods):
            continue
        if not any(pattern.match(route.path) for pattern in refused):
            left = sorted(it for it in route.methods if (it, route.path) not in ours)
            found.append(f"{','.join(left)} {route.path}".strip())
    return found


def filled(path: str) -> Iterator[str]:
    """``path`` with every choice of values for its parameters."""
    parts = re.split(r"(\{[^}]*\})", path)
    choices = [(LONG_VALUES if it.endswith(":path}") else VALUES) if it.startswith("{") else (it,) for it in parts]
    return ("".join(choice) for choice in itertools.product(*choices))


def chosen(routes: Iterable[Route], method: str, path: str) -> Route | None:
    """The one of LiteLLM's ``routes`` that it would choose."""
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "query_string": b""}
    return next((it for it in routes if it.match(scope)[0] == Match.FULL), None)


# --- decisions -------------------------------------------------------------------------------------


def test_every_route_of_litellm_is_served_or_refused_by_decision() -> None:
    assert undecided(litellms()) == []


def test_a_new_route_is_named_until_somebody_decides_about_it() -> None:
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    copy = FastAPI(openapi_url=None)
    copy.router.routes += tables()[0].router.routes

    @copy.post("/v1/telepathy/{model}")
    async def telepathy() -> None: ...

    @copy.put("/v1/chat/completions")
    async def new_method() -> None: ...

    @copy.get("/key/newly")
    async def new_in_a_family_that_is_served() -> None: ...

    copy.mount("/attic", StaticFiles(directory="/", check_dir=False))
    assert undecided(table(copy.router.routes)) == [
        "POST /v1/telepathy/{model}",
        "PUT /v1/chat/completions",
        "GET /key/newly",
        "/attic",
    ]


def test_nothing_is_served_that_litellm_does_not_have() -> None:
    has = {(method, it.path) for it in litellms() for method in it.methods}
    ours = {(method, path) for method, path in served.served(keys=True) if not path.startswith("/residency")}
    assert ours - has == set()
    mounts = {it.path for it in litellms() if it.kind == "mount"}
    assert set(served.MOUNTED_OF_UI) <= mounts


def test_a_route_is_not_served_and_refused_for_the_same_methods() -> None:
    assert len(list(served.served(keys=True))) == len(set(served.served(keys=True)))


# --- what is matched is what is meant ----------------------------------------------------------------


@pytest.mark.parametrize("loaded", [1, 2], ids=["before features are loaded", "with every feature"])
def test_what_is_let_in_is_answered_by_a_route_that_is_served_whatever_its_parameters(loaded: int) -> None:
    """LiteLLM takes the first route that matches; some of the others match nearly everything."""
    ours = set(served.served(keys=True))
    routes = served.Routes(keys=True)
    wrong = []
    for method, template in ours:
        for path in filled(template) if "{" in template else (template,):
            for asked in (path, f"{path}/", f"{path}//", f"/{path}"):
                decision = routes.decide(method, asked)
                if decision.path is None or asked.startswith("/residency"):
                    continue
                to = chosen(tables()[loaded], method, decision.path)
                if to is not None and not (to.path in served.MOUNTED_OF_UI or (method, to.path) in ours):
                    wrong.append(f"{method} {asked} -> {to.path}")
    assert wrong == []


def _turned_away(door: Door, method: str, path: str) -> bool:
    admitted = door.admit({"type": "http", "method": method, "path": path, "headers": []})
    return isinstance(admitted, Answer)


def test_what_is_refused_is_refused_however_it_is_written() -> None:
    """Each route of the table that is not served, spelled as somebody might who wants in."""
    ours = set(served.served(keys=True))
    paths = {path for _, path in ours}
    routes = served.Routes(keys=True)
    door = Door(routes, "me")
    tried, wrong = 0, []
    for route in litellms():
        if route.kind != "http" or route.path in paths:
            continue
        spelled = list(filled(route.path))
        for path in spelled[:: len(spelled) // 6 + 1]:
            for asked in (path, f"{path}/", f"/{path}", f"{path}//", f"/.{path}", f"/ui/..{path}", path.upper()):
                for method in (*route.methods, "HEAD", "OPTIONS", "get"):
                    tried += 1
                    if isinstance(door.admit({"type": "http", "method": method, "path": asked, "headers": []}), Answer):
                        continue
                    # A parameter may spell the name of something that is served: then LiteLLM means that, too.
                    to = chosen(litellms(), method, routes.decide(method, asked).path or asked)
                    if to is not None and to.path not in served.MOUNTED_OF_UI and (method, to.path) not in ours:
                        wrong.append(f"{method} {asked} -> {to.path}")
    assert tried > 20_000
    assert wrong == []
