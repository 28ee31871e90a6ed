"""What agents send back of earlier turns on /v1/responses, in the form that vLLM takes."""

from __future__ import annotations

from typing import Any

from roundhouse.hooks.histories import taken

ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list the files"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "a.txt"}


def history(*items: Any) -> Any:
    return taken("aresponses", {"input": [*items]}).get("input")


def test_a_history_that_vllm_takes_stays_as_it_is() -> None:
    assert history(ASKED, CALL, OUTPUT) is None
    assert taken("aresponses", {"input": "hello"}) == {}
    assert taken("acompletion", {"input": [{"type": "reasoning"}]}) == {}


def test_reasoning_keeps_what_can_be_read_and_has_an_id() -> None:
    """openai/codex leaves the id out where nothing is stored; vLLM wants one, and refuses what is encrypted."""
    summary = [{"type": "summary_text", "text": "hm"}]
    secret = {"type": "reasoning", "summary": summary, "content": None, "encrypted_content": "gAAAA"}
    assert history(ASKED, secret, CALL) == [ASKED, {"type": "reasoning", "id": "rs_0", "summary": summary}, CALL]
    named = {"type": "reasoning", "id": "rs_7", "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert history(named) == [{**named, "summary": []}]
    assert history(ASKED, {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, CALL) == [ASKED, CALL]


def test_a_local_shell_is_a_function_like_any_other() -> None:
    action = {"type": "exec", "command": ["ls"]}
    call = {"type": "local_shell_call", "id": "ls_1", "call_id": "c1", "status": "completed", "action": action}
    output = {"type": "local_shell_call_output", "call_id": "c1", "output": "a.txt"}
    said = '{"type": "exec", "command": ["ls"]}'
    function = {"type": "function_call", "call_id": "c1", "name": "local_shell", "arguments": said}
    assert history(ASKED, call, output) == [ASKED, function, OUTPUT]


def test_what_a_providers_own_tools_did_is_left_out() -> None:
    search = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "x"}}
    assert history(ASKED, search) == [ASKED]


def test_an_item_that_is_no_object_is_for_the_engine_to_refuse() -> None:
    assert history("odd", {"type": "web_search_call"}) == ["odd"]
