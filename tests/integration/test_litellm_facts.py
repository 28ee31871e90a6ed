"""What we know of the pinned LiteLLM from reading it, and nobody promises: each as a test that fails if it changes."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

from roundhouse.deploy.services import cluster
from roundhouse.hooks import residency
from roundhouse.proxy.database import ready

pytestmark = [pytest.mark.integration, pytest.mark.litellm]
ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    """A module of LiteLLM; its warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def source(name: str) -> str:
    """The text of a file of LiteLLM's package, unread by Python."""
    return (Path(importlib.metadata.distribution("litellm").locate_file("litellm").__str__()) / name).read_text()


def test_the_pin_is_what_is_installed_and_the_database_client_is_the_one_that_it_knows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(re.findall(r'"?([\w-]+)(?:\[\w+\])?==([\d.]+)', "\n".join(project["dependencies"])))
    assert pins["litellm"] == importlib.metadata.version("litellm")
    assert pins["prisma"] == importlib.metadata.version("prisma")
    assert "_Prisma__engine" in source("proxy/db/prisma_client.py")
    client = (cluster.parts().client / "prisma" / "client.py").read_text()
    assert "self.__engine" in client


def _hooks() -> list[str]:
    return [name for name in vars(residency.ResidencyHook) if name.startswith("async_")]


@pytest.mark.parametrize("name", _hooks())
def test_each_hook_is_called_with_what_ours_takes(name: str) -> None:
    theirs = inspect.signature(getattr(load("litellm.integrations.custom_logger").CustomLogger, name)).parameters
    ours = inspect.signature(getattr(residency.ResidencyHook, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert all(it.default is not it.empty for it in list(ours.values())[len(theirs) :])


def test_the_hooks_that_the_gate_needs_are_called_where_it_needs_them() -> None:
    text = source("utils.py")
    body = text[text.index("async def wrapper_async") :]
    gate = body.index("async_pre_call_deployment_hook")
    assert gate < body.index("async_get_cache(")  # hence the peek
    assert "async_post_call_failure_deployment_hook" in body
    assert "async_post_call_success_deployment_hook" in body


def test_the_peek_into_the_cache_is_litellms_own_look_up() -> None:
    handler = load("litellm.caching.caching_handler").LLMCachingHandler
    assert {"call_type", "kwargs", "args"} <= inspect.signature(handler._retrieve_from_cache).parameters.keys()
    made = inspect.signature(handler.__init__).parameters
    assert {"original_function", "request_kwargs", "start_time"} <= made.keys()


def test_litellms_own_health_checks_are_marked_as_we_read_them() -> None:
    constants = load("litellm.constants")
    assert residency.HEALTH_TAG == constants.LITTELM_INTERNAL_HEALTH_SERVICE_ACCOUNT_NAME


@pytest.mark.parametrize(
    "name", [*ready.LITELLM, "LITELLM_LOCAL_MODEL_COST_MAP", "DISABLE_ADMIN_UI", "CONFIG_FILE_PATH"]
)
def test_each_variable_that_we_set_is_one_that_litellm_reads(name: str) -> None:
    package = Path(str(importlib.metadata.distribution("litellm").locate_file("litellm")))
    assert any(name in path.read_text(errors="replace") for path in package.rglob("*.py"))


def test_a_stop_writes_what_was_spent() -> None:
    text = source("proxy/proxy_server.py")
    shutdown = text[text.index("async def proxy_startup_event") :]
    flush, disconnect = "await _flush_spend_logs_queue_on_shutdown()", "await proxy_shutdown_event("
    assert shutdown.index(flush) < shutdown.index(disconnect)


def test_the_generated_client_is_slim() -> None:
    package = cluster.parts().client / "prisma"
    assert (package / "types.py").stat().st_size < 10_000
    assert (package / "types_in_full.py").stat().st_size > 1_000_000
    assert 'output = "' in cluster.parts().schema.read_text()
