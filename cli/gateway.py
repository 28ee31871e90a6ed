"""LiteLLM's management API, for commands."""

from __future__ import annotations

import os
from typing import Any

import httpx

from roundhouse.cli import whereabouts
from roundhouse.cli.env import base_url
from roundhouse.cli.errors import FAILED, USAGE, CliError, NotRunning
from roundhouse.config import paths
from roundhouse.config import virtual_keys as keys

TIMEOUT_S = 30.0
"""The API answers in milliseconds; a gateway that starts keeps its callers waiting."""


class ManagementApi:
    """The gateway's API with the master key. Use it with ``with``."""

    def __init__(self) -> None:
        paths.load_env_file()
        try:
            if not keys.enabled():
                raise CliError("virtual keys are off (ROUNDHOUSE_KEYS=off): the master key is the only one")
        except ValueError as error:
            raise CliError(str(error), USAGE) from error
        key = os.environ.get("LITELLM_MASTER_KEY")
        if not key:
            raise CliError(f"no master key: {paths.env_file()} has no LITELLM_MASTER_KEY; 'roundhouse up' makes one")
        if not whereabouts.follow():  # who else may listen at our address gets no key
            raise NotRunning
        headers = {"authorization": f"Bearer {key}"}
        at = base_url().removesuffix("/v1")
        self._http = httpx.Client(base_url=at, headers=headers, timeout=TIMEOUT_S, trust_env=False)  # past any proxy

    def __enter__(self) -> ManagementApi:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The document at ``path``. Raises NotRunning, or CliError with what the gateway says."""
        return self._answer("GET", path, params=params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Post ``body``; the answer. Raises NotRunning, or CliError with what the gateway says."""
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.ConnectError as error:
            raise NotRunning from error
        except httpx.HTTPError as error:
            raise CliError(f"the gateway does not answer ({error}); see 'roundhouse logs'") from error
        if answer.status_code == 200:
            return answer.json()
        raise CliError(_reason(answer), USAGE if 400 <= answer.status_code < 500 else FAILED)


def _reason(answer: httpx.Response) -> str:
    """The first line of what LiteLLM says."""
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text
    line = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return f"the gateway refused (status {answer.status_code}): {line.strip()[:400]}"
