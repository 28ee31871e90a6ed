"""How long a prompt is at least, before anything is started for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roundhouse.config.schema import CommandLauncher, VllmLauncher
from roundhouse.hooks.prompt_size import PromptSizes, count, prompts, tokenizer_of
from tests.support import tokenizers

CONTEXT = 64


def sizes(folder: Path, *args: str) -> PromptSizes:
    launcher = VllmLauncher(kind="vllm", port=8000, model=str(folder), args=list(args))
    return PromptSizes({"m": launcher, "c": CommandLauncher(kind="command", port=8001, argv=["x"])})


def said(it: PromptSizes, kind: str, model: str = "m", **call: Any) -> str | None:
    found = asyncio.run(it.refusal(model, kind, {"model_info": {"max_input_tokens": CONTEXT}, **call}))
    return found and found.message


def words(number: int) -> str:
    return " ".join(["word"] * number)


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(tmp_path: Path) -> None:
    it = sizes(tokenizers.model(tmp_path))
    assert said(it, "atext_completion", prompt=words(70)) == (
        "the prompt has at least 68 tokens, and the context of m has 64: send less"
    )
    assert said(it, "atext_completion", prompt=words(66)) is None  # two of them may grow together with what is round it
    assert said(it, "acompletion", messages=[{"role": "user", "content": words(33)}] * 2) is None
    assert said(it, "acompletion", messages=[{"role": "user", "content": words(40)}] * 2) is not None


def test_each_text_of_a_batch_counts_for_itself(tmp_path: Path) -> None:
    it = sizes(tokenizers.model(tmp_path))
    assert said(it, "aembedding", input=[words(60), words(60)]) is None
    assert said(it, "aembedding", input=["x", words(70)]) is not None
    assert said(it, "aembedding", input=[[1] * 60, [1] * 64]) is None
    assert "at least 70 tokens" in str(said(it, "aembedding", input=[1] * 70))


def test_what_nobody_can_count_is_left_to_the_engine(tmp_path: Path) -> None:
    long = words(500)
    folder = tokenizers.model(tmp_path)
    assert said(sizes(folder, "--tokenizer", "elsewhere"), "atext_completion", prompt=long) is None
    assert said(sizes(folder), "atext_completion", "c", prompt=long) is None
    assert said(sizes(folder), "atext_completion", prompt=long, truncate_prompt_tokens=8) is None
    assert said(sizes(folder), "atext_completion", prompt=long, extra_body={"truncate_prompt_tokens": 8}) is None
    assert said(sizes(tmp_path / "away"), "atext_completion", prompt=long) is None
    (folder / "tokenizer.json").write_text("{}")
    assert said(sizes(folder), "atext_completion", prompt=long) is None
    assert asyncio.run(sizes(folder).refusal("m", "atext_completion", {"prompt": long})) is None  # no context is known


@pytest.mark.parametrize(
    ("kind", "call", "texts"),
    [
        ("acompletion", {"messages": [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}]}, [["a", "b"]]),
        ("anthropic_messages", {"system": "s", "messages": [{"content": "a"}]}, [["s", "a"]]),
        ("anthropic_messages", {"system": [{"type": "text", "text": "s"}], "messages": []}, [["s"]]),
        ("aresponses", {"instructions": "i", "input": "a"}, [["i", "a"]]),
        ("aresponses", {"input": [{"content": [{"type": "input_text", "text": "a"}]}, {"output": "b"}]}, [["a"]]),
        ("aembedding", {"input": ["a", "b"]}, [["a"], ["b"]]),
        ("aembedding", {"input": [1, 2, 3]}, [[3]]),
        ("aembedding", {"input": [[1], [2, 3]]}, [[1], [2]]),
        ("atext_completion", {"prompt": 5}, []),
    ],
)
def test_the_texts_of_a_call(kind: str, call: dict[str, Any], texts: list[list[Any]]) -> None:
    assert list(prompts(kind, call)) == texts


def test_texts_are_counted_as_they_are_at_least(tmp_path: Path) -> None:
    launcher = VllmLauncher(kind="vllm", port=8000, model=str(tokenizers.model(tmp_path)), args=[])
    tokenizer = tokenizer_of("m", launcher)
    assert tokenizer is not None
    assert count(tokenizer, [words(20), words(20), 5]) == 18 + 18 + 5  # though the file cuts texts
