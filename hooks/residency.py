"""The gate in front of every engine: the only file that knows the callbacks of the pinned LiteLLM.

``async_pre_call_deployment_hook`` waits for the model: it runs after rate limits, for every attempt, and
is cancelled when the client leaves. It runs before the response cache is asked, hence the peek. A lease
is given back by whichever comes first of: the success or failure hook of the attempt, the end of its
task, the end of the stream, the end of the exchange for a stream that nobody read, and last, counted
because it should never happen, the gateway's backstop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import Launcher
from roundhouse.hooks import (
    cache_rules,
    headers,
    histories,
    infill,
    kinds,
    limits,
    media,
    peek,
    reach,
    shared_client,
    strict_tools,
    token_ids,
    values,
    via,
)
from roundhouse.hooks import lease_scope as scope
from roundhouse.hooks.caller import asking, key_hash, metadata_of, of_key
from roundhouse.hooks.fetching import Fetcher, MediaRefused
from roundhouse.hooks.nearest import nearest
from roundhouse.hooks.prompt_size import PromptSizes
from roundhouse.residency.client.leases import Lease, LeaseClient
from roundhouse.residency.codes import Code, Refused

HEALTH_TAG = "litellm-internal-health-check"
"""litellm.constants.LITTELM_INTERNAL_HEALTH_SERVICE_ACCOUNT_NAME: marks LiteLLM's own health checks."""

MODERATION = ("moderation", "amoderation")
"""The one kind of call that LiteLLM makes for a model it does not know: with whatever key it finds for a provider."""

FORGETFUL = ("amoderation", "aspeech", "atranscription")
"""Kinds of calls that LiteLLM makes without the headers of a call; the client library adds this gateway's own name."""

METADATA = ("metadata", "litellm_metadata")
"""What LiteLLM notes of a call; it has two names for it, by route."""

_Call = tuple[scope.LeaseScope | None, str]
"""One of LiteLLM's calls. Its id alone would not do: a client may choose it, also one that another request has."""


class ResidencyHook(CustomLogger):
    """Takes a lease before an engine is called and gives it back however the call ends."""

    def __init__(self) -> None:
        super().__init__()
        self._client: LeaseClient | None = None
        self._managed: dict[tuple[str | None, int | None], str] = {}
        self._launchers: dict[str, Launcher] = {}
        self._prompt_sizes = PromptSizes({})
        self._max_wait_s = 0.0
        self._fetcher: Fetcher | None = None
        self._held: dict[_Call, dict[asyncio.Task[Any], Lease]] = {}

    # --- LiteLLM's callbacks -------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> None:
        """Refuse what cannot be gated. Never waits: this runs before rate limits and is not cancelled."""
        model = data.get("model")
        if getattr(call_type, "value", call_type) in MODERATION and not _is_of_the_yaml(model):
            raise _refusal(Refused(Code.NOT_SERVED, f"{model} is no model of the YAML: it moderates nothing"))
        if isinstance(model, str) and "," in model:
            message = f"one model a request, not a list of them: {model!r}"
            raise HTTPException(400, detail={"error": message})
        exchange = scope.current.get()
        if exchange is not None and isinstance(model, str) and not _is_of_the_yaml(model):
            exchange.nearest = nearest(model, _names(), list(getattr(user_api_key_dict, "models", None) or []))

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Wait until the deployment's engine is resident, unless the cache is going to answer."""
        model = self._model_of(kwargs)
        kind = getattr(call_type, "value", call_type)
        key = None if _is_admin(kwargs) else key_hash(kwargs)
        kwargs["cache"] = cache_rules.controls(kwargs, kind, key, of_key(kwargs), peek.space())
        cache_rules.forget_name(kwargs)
        for bucket in METADATA:
            headers.made_safe(kwargs.get(bucket) or {}, "deployment")
        if model is None:
            _mark(kwargs, kind)
            return
        kwargs.update(limits.within(kwargs))
        kwargs.update(infill.filled(kwargs, self._launchers[model].infill or ()))
        kwargs.update(histories.taken(kind, kwargs))
        kwargs.update(strict_tools.kept(kind, kwargs))
        call, task = _call(kwargs), asyncio.current_task()
        assert task is not None
        if self._has(call, task, model):
            await self._bring(kwargs)  # a call inside a call: /v1/messages runs as a chat completion
            return
        await self._refuse_what_cannot_work(model, kind, kwargs)
        await self._bring(kwargs)  # before anything moves, and before the cache is asked: a picture may have changed
        if await peek.would_answer(kwargs, kind):
            return
        if task.cancelling():  # the client left during a look-up in Redis: LiteLLM's swallows the cancellation
            raise asyncio.CancelledError
        if kind == "acompletion":  # the look-up was made; for other kinds LiteLLM needs its own
            kwargs["cache"] = {**kwargs["cache"], "no-cache": True}
        lease = await self._acquire(model, kwargs)
        self._held.setdefault(call, {})[task] = lease
        lease.on_release = lambda: self._forget(call, task)
        task.add_done_callback(lambda done: self._task_ended(call, done))

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """A call without a stream is over."""
        if not (_is_stream(response) or request_data.get("stream") is True):
            self._give_back(request_data, "success")

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> None:
        """The headers of an answer are about to be written."""
        _make_headers_safe(response)

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str]:
        """The headers of a stream are about to be written: which to write besides, or instead."""
        return _make_headers_safe(response)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: Any = None
    ) -> None:
        """An attempt failed."""
        self._give_back(request_data, f"failure: {type(exception).__name__}")

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream through; however it ends, its lease is given back."""
        why = "stream ended"
        try:
            async for item in response:
                yield item
        except BaseException as error:
            why = f"stream: {type(error).__name__}"
            raise
        finally:
            for task in list(self._held.get(call := _call(request_data), {})):
                self._release(call, task, why)

    async def _refuse_what_cannot_work(self, model: str, kind: str, kwargs: dict[str, Any]) -> None:
        """Raise HTTPException for what the model's engine is sure to refuse: nothing is to move for that."""
        if kind not in kinds.KINDS:
            text = f"{model} does not support files, batches, sessions or pass-through: send single requests"
            raise _refusal(Refused(Code.NOT_SERVED, text))
        cannot = (
            kinds.refusal(model, kind, kwargs)
            or (None if self._launchers[model].token_ids else token_ids.refusal(kind, kwargs))
            or values.refusal(kind, kwargs)
            or await self._prompt_sizes.refusal(model, kind, kwargs)
        )
        if cannot is not None:
            raise HTTPException(400, detail={"error": cannot.error})

    async def _bring(self, kwargs: dict[str, Any]) -> None:
        """Put what URLs lead to in their place: an engine would fetch it from anywhere. Raises HTTPException."""
        urls = media.urls(kwargs)
        if not urls:
            return
        if self._fetcher is None:
            self._fetcher = Fetcher(reach.parse(os.environ.get(reach.SETTING, "")))
        try:
            kwargs.update(media.replaced(kwargs, await self._fetcher.fetch(urls, admin=_is_admin(kwargs))))
        except MediaRefused as error:
            raise _refusal(Refused(Code.MEDIA_REFUSED, str(error))) from error

    # --- leases ----------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the connection to residency. The gateway does it when it is up; else the first request does."""
        if self._client is None:
            settings = load_settings(paths.config_file())
            self._managed = {_address(entry.api_base): name for name, entry in settings.models.items()}
            self._launchers = {name: entry.launcher for name, entry in settings.models.items()}
            self._prompt_sizes = PromptSizes(self._launchers)
            self._max_wait_s = settings.residency.max_wait_s
            self._client = LeaseClient(paths.control_socket())
            self._client.connect()
            shared_client.install()

    def _model_of(self, kwargs: dict[str, Any]) -> str | None:
        """Our name of the engine that the deployment is, or ``None``: then it is not ours to gate."""
        self.connect()
        return self._managed.get(_address(kwargs.get("api_base") or ""))

    def _has(self, call: _Call, task: asyncio.Task[Any], model: str) -> bool:
        """Whether this attempt has its lease already; leases of attempts that it replaces are given back."""
        for other, lease in list(self._held.get(call, {}).items()):
            if other is task and lease.model == model:
                return True
            if other is task or other.done():
                self._release(call, other, "superseded")  # a fallback: never hold one model and wait for another
        return False

    async def _acquire(self, model: str, kwargs: dict[str, Any]) -> Lease:
        """The lease, entered into the exchange's scope. Raises HTTPException where residency refuses."""
        assert self._client is not None
        exchange = scope.current.get()
        try:
            it = asking(kwargs, self._max_wait_s)
            lease = await self._client.acquire(
                model,
                caller=it.caller,
                weight=it.priority.weight,
                max_wait_s=it.max_wait_s,
                may_switch=it.may_switch and not _is_health_check(kwargs),
            )
        except Refused as refused:
            raise _refusal(refused) from refused
        if exchange is not None:
            exchange.leases.append(lease)
        return lease

    def _give_back(self, data: Mapping[str, Any], why: str) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._release(_call(data), task, why)

    def _release(self, call: _Call, task: asyncio.Task[Any], why: str) -> None:
        lease = self._held.get(call, {}).get(task)
        if lease is not None:
            lease.release(why)

    def _forget(self, call: _Call, task: asyncio.Task[Any]) -> None:
        """A lease was given back, by us or by the exchange's end."""
        tasks = self._held.get(call, {})
        tasks.pop(task, None)
        if not tasks:
            self._held.pop(call, None)

    def _task_ended(self, call: _Call, task: asyncio.Task[Any]) -> None:
        """The attempt's task is done: its lease too, unless its result is a stream that is yet to be read."""
        exchange, _ = call
        if exchange is not None and not task.cancelled() and task.exception() is None:
            result = task.result()
            lease = self._held.get(call, {}).get(task)
            if _is_stream(result):
                if lease is not None:
                    exchange.streams.append((lease, result))
                return
        self._release(call, task, "cancelled" if task.cancelled() else "task ended")


def _call(data: Mapping[str, Any]) -> _Call:
    return scope.current.get(), str(data.get("litellm_call_id"))


def _refusal(refused: Refused) -> HTTPException:
    """What LiteLLM is to raise; the gateway says it in OpenAI's shape."""
    exchange = scope.current.get()
    if exchange is not None:
        exchange.refused = refused
    return HTTPException(refused.status, detail={"error": refused.error}, headers=refused.headers)


def _address(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port


def _is_of_the_yaml(model: Any) -> bool:
    """Whether LiteLLM would choose a deployment for ``model``."""
    from litellm.proxy.proxy_server import llm_router  # a name that is bound when the gateway is up

    return isinstance(model, str) and llm_router is not None and bool(llm_router.get_model_list(model_name=model))


def _names() -> list[str]:
    """The names of all models, and their aliases."""
    from litellm.proxy.proxy_server import llm_router  # as above

    return [] if llm_router is None else [*llm_router.get_model_names(), *(llm_router.model_group_alias or {})]


def _mark(kwargs: dict[str, Any], kind: Any) -> None:
    """Have a call to a server that is not ours say where it comes from, should it lead back here."""
    request = kwargs.get("proxy_server_request") or {}
    given = {str(name).lower(): str(value) for name, value in (request.get("headers") or {}).items()}
    if kind in FORGETFUL and via.HEADER in given:
        text = "this request comes from another gateway, and such a request is not sent on: it might come back"
        raise _refusal(Refused(Code.NOT_SERVED, text))
    if header := via.onward(given, via.own()):
        kwargs["extra_headers"] = {**(kwargs.get("extra_headers") or {}), via.HEADER: header}


def _make_headers_safe(response: Any) -> dict[str, str]:
    hidden = response.get("_hidden_params") if isinstance(response, dict) else getattr(response, "_hidden_params", None)
    fields = hidden.get("additional_headers") if isinstance(hidden, dict) else None
    return headers.made_safe(fields, headers.GROUP) if isinstance(fields, dict) else {}


def _is_stream(result: Any) -> bool:
    return hasattr(result, "__anext__") or hasattr(result, "__aiter__")


def _is_admin(kwargs: dict[str, Any]) -> bool:
    """Whether the request came with an admin's key. A client may send metadata, but no object of LiteLLM's."""
    key = metadata_of(kwargs).get("user_api_key_auth")
    return isinstance(key, UserAPIKeyAuth) and key.user_role == LitellmUserRoles.PROXY_ADMIN


def _is_health_check(kwargs: dict[str, Any]) -> bool:
    tags = metadata_of(kwargs).get("tags")
    return isinstance(tags, list) and HEALTH_TAG in tags


hook = ResidencyHook()
"""What ``litellm_settings.callbacks`` names. Does nothing until it is called."""
