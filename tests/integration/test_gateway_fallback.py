"""A model that is not ours: passed by untouched, and the way out when one of ours is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from roundhouse.bench.stack import litellm_config, model
from tests.support import fakes
from tests.support.stack import Stack, free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(120)]


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A server that Roundhouse does not manage; its port."""
    port = free_port()
    argv = [sys.executable, str(fakes.ENGINE), "--port", str(port), "--model", "elsewhere"]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=dict(os.environ))

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(answers, "it answers")
    yield port
    server.kill()
    server.wait()


def test_a_refusal_of_ours_falls_back_to_a_model_elsewhere(elsewhere: int) -> None:
    config = litellm_config([model("broken", fakes.launcher("broken", "--exit-at-once", "3"))], gate=True)
    params = {"model": "hosted_vllm/elsewhere", "api_base": f"http://127.0.0.1:{elsewhere}/v1", "api_key": "none"}
    config["model_list"].append({"model_name": "cloud", "litellm_params": params})
    with Stack(config) as stack:
        answer = stack.chat("cloud", f"{time.time_ns()}")
        assert answer.json()["choices"][0]["message"]["content"].startswith("elsewhere")
        assert stack.counter("granted") == 0
    config["router_settings"]["fallbacks"] = [{"broken": ["cloud"]}]
    with Stack(config) as stack:
        answer = stack.chat("broken", f"{time.time_ns()}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"].startswith("elsewhere")
        assert stack.counter("failures") == 1
        assert "roundhouse_backstop_releases_total 0.0" in stack.http.get("/residency/metrics").text
