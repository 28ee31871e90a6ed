"""LiteLLM's admin UI as a person uses it, in a real browser: log in, make a key, watch it, change it, block it.

The tests share a stack and a page and run in this order.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import APIStatusError, OpenAI
from playwright.sync_api import BrowserContext, Locator, Page, expect

from roundhouse.deploy.services import cluster
from tests.support import fakes
from tests.support.browser import visitor
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm]

CACHE_S = 3
"""How long the gateway may know a key without asking; by default LiteLLM's 60 s."""

USER = "keeper"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    document = fakes.config({"a": [], "b": []}, max_wait_s=60)
    for entry in document["model_list"]:
        entry["model_info"] |= {"input_cost_per_token": 0, "output_cost_per_token": 0}
    document["general_settings"]["user_api_key_cache_ttl"] = CACHE_S
    if not cluster.parts().complete(postgres=True):
        pytest.skip("no PostgreSQL; './roundhouse test' fetches it")
    with Stack(document, {"UI_USERNAME": USER, "PROXY_BATCH_WRITE_AT": "1"}, keys=True) as it:
        yield it


@pytest.fixture(scope="module")
def address(stack: Stack) -> str:
    """What ``roundhouse ui --print`` prints."""
    argv = [sys.executable, "-m", "roundhouse.cli.main", "ui", "--print"]
    done = subprocess.run(argv, env=stack.env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Every address that the pages have asked for."""
    return []


@pytest.fixture(scope="module")
def context(asked: list[str]) -> Iterator[BrowserContext]:
    with visitor() as it:
        it.on("request", lambda request: asked.append(request.url))
        yield it


@pytest.fixture(scope="module")
def page(context: BrowserContext, address: str, stack: Stack) -> Page:
    """The page of somebody who has logged in."""
    page = context.new_page()
    page.goto(address)
    log_in(page, stack.env["UI_PASSWORD"])
    expect(page.get_by_role("link", name="Virtual Keys", exact=True)).to_be_visible()
    return page


@pytest.fixture(scope="module")
def key(page: Page, address: str) -> str:
    """A key for the model ``a``, made in the dialog."""
    page.goto(f"{address}api-keys/")
    page.get_by_role("button", name="Create New Key").click()
    dialog = page.get_by_role("dialog", name="Create New Key")
    dialog.get_by_label("Key Name").fill("editor")
    models = dialog.get_by_role("combobox", name="Select models")
    models.click()
    page.get_by_role("option", name="a", exact=True).click()
    expect(dialog.get_by_role("toolbar")).to_contain_text("a")
    models.press("Escape")  # the list covers the button
    dialog.get_by_role("button", name="Create Key").click()
    text = page.get_by_role("dialog", name="Save your Key").get_by_text("sk-").inner_text()
    assert text.startswith("sk-")
    return text


# --- what a person does ----------------------------------------------------------------------------


def log_in(page: Page, password: str) -> None:
    page.get_by_label("Username").fill(USER)
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("button", name="Login", exact=True).click()


def open_key(page: Page, address: str) -> None:
    """The page of the key ``editor``."""
    page.goto(f"{address}api-keys/")
    row(page, "editor").get_by_role("button", name="editor").click()


def row(page: Page, text: str) -> Locator:
    """The first row of a table that has ``text``."""
    return page.get_by_role("row").filter(has_text=text).first


def ask(stack: Stack, key: str, model: str) -> int | dict[str, Any]:
    """200, or the error, of one chat with a new question."""
    with OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0, timeout=60) as client:
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": f"{time.time_ns()}"}])
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            return {"status": error.status_code, **body}
    return 200


def status(answer: int | dict[str, Any]) -> int:
    return answer if isinstance(answer, int) else int(answer["status"])


# --- in this order ---------------------------------------------------------------------------------


def test_the_command_prints_the_address(stack: Stack, address: str) -> None:
    assert address == f"{stack.url}/ui/"


def test_a_wrong_password_is_refused_with_a_message(context: BrowserContext, address: str, stack: Stack) -> None:
    with context.new_page() as page:
        page.goto(address)
        log_in(page, stack.env["UI_PASSWORD"] + "x")
        expect(page.get_by_role("alert").filter(has_text="Invalid credentials")).to_be_visible()
        expect(page.get_by_role("button", name="Login", exact=True)).to_be_visible()


def test_the_right_password_opens_the_ui(page: Page) -> None:
    expect(page.get_by_role("heading", name="Home", exact=True)).to_be_visible()


def test_the_models_are_there_at_no_price(page: Page, address: str) -> None:
    page.goto(f"{address}models-and-endpoints/")
    for name in ("a", "b"):
        expect(row(page, f"hosted_vllm/{name}")).to_contain_text("$0.00")


def test_a_key_made_in_the_dialog_may_use_its_model_and_no_other_and_asking_moves_nothing(
    stack: Stack, key: str
) -> None:
    assert ask(stack, key, "a") == 200
    before = stack.status()
    assert status(ask(stack, key, "b")) == 403
    after = stack.status()
    assert after["counters"] == before["counters"]
    assert (stack.resident(), stack.state("b")) == ("a", "stopped")


def test_its_requests_are_in_the_logs_and_in_usage(page: Page, address: str, stack: Stack, key: str) -> None:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    params = {"start_date": day, "end_date": "9999-12-31"}

    def counted() -> bool:
        daily = stack.http.get("/user/daily/activity", params=params).json()
        listed = stack.http.get("/spend/logs", params={"api_key": key, "summarize": "false"}).json()
        return daily["metadata"]["total_successful_requests"] > 0 and any(it["total_tokens"] for it in listed)

    wait_for(counted, "the request is written", 60)
    page.goto(f"{address}logs/")
    for text in ("Success", "Failure"):  # the second is the one that was refused
        expect(row(page, text)).to_contain_text("editor")
    page.goto(f"{address}usage/")
    expect(row(page, "editor")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"Total Tokens\s*3"))


def test_metadata_that_is_changed_in_the_ui_takes_effect(page: Page, address: str, stack: Stack, key: str) -> None:
    open_key(page, address)
    page.get_by_role("tab", name="Settings").click()
    page.get_by_role("button", name="Edit Settings").click()
    page.get_by_label("Metadata").fill('{"roundhouse": {"may_switch": "never"}}')
    page.get_by_role("button", name="Save Changes").click()
    expect(page.get_by_text("Key updated successfully")).to_be_visible()
    expect(page.get_by_role("tabpanel", name="Settings")).to_contain_text('"may_switch": "never"')
    assert stack.chat("b", "bring b").status_code == 200
    wait_for(lambda: stack.resident() == "b", "b is resident")

    def refused() -> bool:
        answer = ask(stack, key, "a")
        return isinstance(answer, dict) and answer["code"] == "would_switch"

    wait_for(refused, "it may not switch", CACHE_S + 10)


def test_a_key_that_is_blocked_in_the_ui_is_refused(page: Page, address: str, stack: Stack, key: str) -> None:
    open_key(page, address)
    page.get_by_role("button", name="More key actions").click()
    page.get_by_role("menuitem", name="Block Key").click()
    page.get_by_role("dialog", name="Block Key").get_by_role("button", name="Block", exact=True).click()
    expect(page.get_by_role("dialog", name="Block Key")).to_be_hidden()
    wait_for(lambda: status(ask(stack, key, "a")) == 401, "the blocked key is refused", CACHE_S + 10)
    page.goto(f"{address}api-keys/")
    expect(row(page, "editor")).to_contain_text("Blocked")


def test_the_pages_ask_nobody_but_the_gateway(page: Page, asked: list[str], stack: Stack) -> None:
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(stack.url).netloc}
