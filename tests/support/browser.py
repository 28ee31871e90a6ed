"""A real browser, in which nothing but this machine can be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, expect, sync_playwright

from roundhouse.config import paths
from roundhouse.deploy.setup import browser, tools

PATIENCE_S = 30
"""For whatever a page is to show; a second is the rule, on a busy machine it may be ten."""

ARGUMENTS = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # also for what the browser itself would ask for
    "--disable-gpu",
]


@contextmanager
def visitor() -> Iterator[BrowserContext]:
    """A fresh profile in headless Chromium, with ``expect`` as patient as the machine is slow.

    Fails where the set-up got no browser. Chromium's own sandbox is off for root, as whom it cannot run.
    """
    found = browser.find(tools.folder(paths.project_root()))
    assert found, f"no browser for the admin UI's tests: {browser.MISSING}, or run ./roundhouse test, which fetches it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found.program,
            env={**os.environ, **found.environment},
            args=ARGUMENTS,
            chromium_sandbox=os.geteuid() != 0,
        )
        with chromium, chromium.new_context(viewport={"width": 1400, "height": 900}) as context:
            context.set_default_timeout(PATIENCE_S * 1000)
            expect.set_options(timeout=PATIENCE_S * 1000)
            yield context
