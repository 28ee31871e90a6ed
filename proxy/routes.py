"""``/residency/*``: what residency knows and can be told, behind LiteLLM's own key check."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Body, Depends, HTTPException, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

from roundhouse.config import paths
from roundhouse.proxy import errors
from roundhouse.residency.client.http import http_client
from roundhouse.residency.client.leases import refused
from roundhouse.residency.codes import Code, Refused

PAGE = Path(__file__).with_name("page.html")
TIMEOUT_S = 5.0
"""For what only looks; residency answers from memory."""

Key = Annotated[UserAPIKeyAuth, Depends(user_api_key_auth)]


def admin(key: Key) -> UserAPIKeyAuth:
    """Let only an admin's key through. Raises HTTPException with status 403."""
    if key.user_role != LitellmUserRoles.PROXY_ADMIN:
        raise HTTPException(403, detail={"error": "this needs an admin's key"})
    return key


Admin = Annotated[UserAPIKeyAuth, Depends(admin)]


def router(aliases: Mapping[str, str]) -> APIRouter:
    """The routes. Models may be called by their ``aliases`` (any other name -> model), as in any other request."""
    routes = APIRouter(prefix="/residency")

    def by_name(body: dict[str, Any]) -> dict[str, Any]:
        model = body.get("model")
        return {**body, "model": aliases.get(model, model)} if isinstance(model, str) else body

    @routes.get("/status")
    async def status(key: Key) -> Response:
        """Devices, models, counters."""
        return await _look("/status")

    @routes.get("/metrics")
    async def metrics(key: Key) -> Response:
        """Prometheus text."""
        return await _look("/metrics")

    @routes.get("/")
    async def page() -> Response:
        """The page; it asks for a key and says nothing without one."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @routes.get("/events")
    async def events(key: Admin) -> Response:
        """Every event as SSE."""
        return StreamingResponse(_events(), media_type="text/event-stream")

    @routes.post("/switch")
    async def switch(key: Admin, body: Annotated[dict[str, Any], Body()]) -> Response:
        """Bring a model onto its device; answers when it is there."""
        return await _command("/switch", by_name(body))

    @routes.post("/unload")
    async def unload(key: Admin, body: Annotated[dict[str, Any], Body()]) -> Response:
        """Take a model, or with null everything, off; answers when it is gone."""
        return await _command("/unload", by_name(body))

    return routes


def _absent(error: Exception) -> Response:
    text = f"residency does not answer ({error}); see 'roundhouse status'"
    return _refused(Refused(Code.SHUTTING_DOWN, text, 5.0))


def _refused(why: Refused) -> Response:
    code, headers, content = errors.refusal(why)
    return Response(content, code, headers, media_type="application/json")


async def _look(path: str) -> Response:
    try:
        async with http_client(paths.control_socket(), TIMEOUT_S) as api:
            answer = await api.get(path)
    except httpx.HTTPError as error:
        return _absent(error)
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


async def _events() -> AsyncIterator[bytes]:
    async with http_client(paths.control_socket()) as api, api.stream("GET", "/events") as answer:
        async for chunk in answer.aiter_raw():
            yield chunk


async def _command(path: str, body: dict[str, Any]) -> Response:
    """Run a command to its end: 200 with the status, or residency's refusal."""
    try:
        async with http_client(paths.control_socket()) as api:
            answer = await api.post(path, json=body)
            if answer.status_code != 200:
                return Response(answer.content, answer.status_code, media_type="application/json")
            last = json.loads(answer.text.splitlines()[-1])
            if last["event"] != "refused":
                return JSONResponse((await api.get("/status")).json())
    except httpx.HTTPError as error:
        return _absent(error)
    return _refused(refused(last))
