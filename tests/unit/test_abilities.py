"""What a launcher tells of its model, and what of a request is cut to it."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.config.schema import CommandLauncher, VllmLauncher
from roundhouse.hooks import limits
from roundhouse.launchers.vllm.abilities import of_launcher
from roundhouse.proxy import abilities

TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser=hermes")


@pytest.mark.parametrize(
    ("args", "info"),
    [
        ((), {"supports_function_calling": False}),
        (("--max-model-len=24576", *TOOLS), {"max_input_tokens": 24576, "supports_function_calling": True}),
        (("--max_model_len", "32k", TOOLS[0]), {"max_input_tokens": 32000, "supports_function_calling": False}),
        (("--max-model-len=auto",), {"supports_function_calling": False}),
        (("--max-model-len=nonsense",), {"supports_function_calling": False}),
        (
            ("--enable_auto_tool_choice", "--tool-call-parser", "x", "--reasoning-parser=qwen3"),
            {"supports_function_calling": True, "supports_reasoning": True},
        ),
    ],
)
def test_what_vllms_arguments_tell(args: tuple[str, ...], info: dict[str, Any]) -> None:
    assert of_launcher(VllmLauncher(kind="vllm", port=1, model="m", args=args)) == info


@pytest.mark.parametrize(
    ("argv", "info"),
    [
        (("server",), {}),
        (("llama-server", "-c", "8192"), {"max_input_tokens": 8192}),
        (("llama-server", "--ctx-size=16384", "-np", "4"), {"max_input_tokens": 4096}),
        (("llama-server", "-c", "0"), {}),
        (("llama-server", "-c"), {}),
    ],
)
def test_what_a_command_tells(argv: tuple[str, ...], info: dict[str, Any]) -> None:
    assert of_launcher(CommandLauncher(kind="command", port=1, argv=argv)) == info


@pytest.mark.parametrize("name", limits.NAMES)
def test_only_what_is_beyond_the_context_is_cut(name: str) -> None:
    info = {"model_info": {"max_input_tokens": 4096}}
    assert limits.within({**info, name: 32_000}) == {name: 4096}
    assert limits.within({**info, name: 4096}) == limits.within({**info, name: None}) == limits.within(info) == {}
    assert limits.within({name: 32_000}) == limits.within({name: 32_000, "model_info": {}}) == {}


def test_what_the_yaml_says_itself_stays() -> None:
    deployment: dict[str, Any] = {"litellm_params": {"api_base": "elsewhere"}}
    abilities.tell([deployment], {})
    assert deployment["model_info"] == {}
