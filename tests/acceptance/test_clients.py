"""Ordinary clients, as their users have them, against the CPU set-up with real vLLM: the table in docs/clients.md.

``WRITE_DOCS=1`` writes the table anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from roundhouse.deploy.setup import clients, node
from tests.support.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "clients"
DOC = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- by tests/acceptance/test_clients.py -->\n", "<!-- end -->\n"

CASES = ("chat", "stream", "tools", "structured", "embeddings", "vision", "errors")
CLIENTS = {
    "python/openai_sdk.py": "OpenAI's SDK, Python",
    "node/openai_sdk.mjs": "OpenAI's SDK, Node",
    "python/anthropic_sdk.py": "Anthropic's SDK, Python",
    "node/anthropic_sdk.mjs": "Anthropic's SDK, Node",
    "python/langchain_client.py": "LangChain",
    "python/llamaindex_client.py": "LlamaIndex",
    "node/ai_sdk.mjs": "AI SDK",
    "python/pydantic_ai_client.py": "pydantic-ai",
    "python/smolagents_client.py": "smolagents",
    "python/instructor_client.py": "instructor",
    "python/llm_client.py": "llm",
    "python/aider_client.py": "aider",
}
AT_ONCE = 3
"""Clients that run side by side: they wait for engines, and start slowly themselves."""


def argv(script: str, folder: Path) -> list[str]:
    if script.endswith(".mjs"):
        return [str(node.find(lambda: node.fetched(ROOT / ".venv-tools"))), str(folder / Path(script).name)]
    environment = clients.aider(ROOT) if "aider" in script else clients.environment(ROOT)
    return [str(environment.python), str(SCRIPTS / script)]


@pytest.fixture(scope="module")
def said(real: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What each client's script says of its cases."""
    folder = tmp_path_factory.mktemp("node")
    for file in (SCRIPTS / "node").glob("*.mjs"):
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(clients.node_folder(ROOT) / "node_modules")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))}
    env |= {"OPENAI_BASE_URL": f"{real.url}/v1", "OPENAI_API_KEY": real.key, "HOME": str(folder)}

    def one(script: str) -> list[dict[str, Any]]:
        command = argv(script, folder)
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"client"')]
        assert lines, f"{script}: {done.stdout}{done.stderr}"
        return [json.loads(line) for line in lines]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield dict(zip(CLIENTS, pool.map(one, CLIENTS), strict=True))


@pytest.mark.parametrize("script", CLIENTS)
def test_a_client_does_all_that_it_can(said: dict[str, list[dict[str, Any]]], script: str) -> None:
    wrong = [f"{line['case']}: {line['why']}" for line in said[script] if not line["ok"]]
    assert not wrong, "\n".join(wrong)


def test_the_table_in_the_documents_is_what_was_seen(said: dict[str, list[dict[str, Any]]]) -> None:
    head = ["client", "version", *CASES]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for script, name in CLIENTS.items():
        seen = {line["case"]: line["ok"] for line in said[script]}
        cells = ["-" if case not in seen else "yes" if seen[case] else "no" for case in CASES]
        link = f"[{name}](../tests/clients/{script})"
        rows.append("| " + " | ".join([link, said[script][0]["version"], *cells]) + " |")
    table = "\n".join(rows) + "\n"
    before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
    there, _, after = rest.partition(END)
    if os.environ.get("WRITE_DOCS"):
        DOC.write_text(before + BEGIN + table + END + after, encoding="utf-8")
        return
    assert there == table, f"docs/clients.md is out of date: WRITE_DOCS=1 writes it\n{table}"
