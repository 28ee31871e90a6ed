"""What clients read of an error, for each row of docs/errors.md and each way LiteLLM wraps one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from roundhouse.hooks import values
from roundhouse.hooks.kinds import refusal
from roundhouse.proxy.errors import repair
from roundhouse.proxy.late_errors import Stream

DOC = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
INNER = {"message": 'say "this"', "type": "BadRequestError", "param": "x", "code": 400}
TAIL = "\n\nLiteLLM: model group 'a' failed with the error above. No fallback was attempted."
DROPPED = "Hosted_vllmException - Server disconnected"
LONG = "This model's maximum context length is 4096 tokens."
GONE = "Invalid model name passed in model=x. Call `/v1/models` to view available models for your key."
BAD_KEY = "Authentication Error, Invalid proxy server token passed. Received API Key = sk-..x, Key Hash (Token) =abc."
SLOW = (
    "litellm.Timeout: Timeout Error: Hosted_vllmException - litellm.Timeout: Connection timed out. Timeout passed=2.0"
)

ROWS: dict[str, tuple[int | str, Any]] = {
    "the engine refuses the request": (400, f"litellm.BadRequestError: Hosted_vllmException - no{TAIL}"),
    "prompt, or prompt and answer, too long": (400, f"litellm.ContextWindowExceededError: {LONG}"),
    "the model does not answer requests of this kind": ("aembedding", {"model_info": {"mode": "chat"}}),
    "a stored response, or one in the background": ("aresponses", {"background": True}),
    "pictures for a model with `supports_vision: false`": (
        "acompletion",
        {"model_info": {"supports_vision": False}, "messages": [{"content": [{"type": "image_url"}]}]},
    ),
    "tools for a model with `supports_function_calling: false`": (
        "acompletion",
        {"model_info": {"supports_function_calling": False}, "tools": [{}]},
    ),
    "a `suffix` for a `vllm` model without `launcher.infill`": (
        "atext_completion",
        {"suffix": "b", "model_info": {"launcher": {"kind": "vllm"}}},
    ),
    "a value that vLLM refuses: out of range, empty, or not one of those it knows": (
        "acompletion",
        {"temperature": -1, "model_info": {"launcher": {"kind": "vllm"}}},
    ),
    "a chat's parameter in `/v1/completions`": (
        "atext_completion",
        {"prompt": "x", "tools": [], "model_info": {"launcher": {"kind": "vllm"}}},
    ),
    "token ids, where text is wanted": ("atext_completion", {"model": "hosted_vllm/a", "prompt": [906, 917]}),
    "a stream with `n` above 1": ("acompletion", {"stream": True, "n": 2}),
    "no such model": (400, f"/chat/completions: {GONE}"),
    "wrong key": (401, BAD_KEY),
    "the engine gave no answer in time": (408, SLOW + TAIL),
    "too many requests": (429, f"litellm.RateLimitError: RateLimitError: Hosted_vllmException - wait{TAIL}"),
    "the engine failed, or ended while it answered": (500, f"litellm.APIConnectionError: {DROPPED}"),
}


def table() -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in DOC.read_text().splitlines() if re.match(r"\| [^-F]", line)]
    return {cells[0].strip(): [cell.strip().strip("`") for cell in cells[1:4]] for cells in lines}


def answered(status: int, message: str, **more: Any) -> dict[str, Any]:
    document = {"error": {"message": message, "type": "None", "param": "None", "code": str(status), **more}}
    error: dict[str, Any] = json.loads(repair(status, json.dumps(document).encode(), None)[2])["error"]
    return error


@pytest.mark.parametrize("fault", [*ROWS])
def test_the_documents_table_is_so(fault: str) -> None:
    status, kind, code = table()[fault]
    case, what = ROWS[fault]
    if isinstance(case, str):
        found = refusal("a", case, what) or values.refusal(case, what)
        assert found is not None
        error, case = found.error, 400
    else:
        error = answered(case, what)
    assert [str(case), error["type"], error["code"]] == [status, kind, code]
    assert not re.search("litellm\\.|Exception|allback|Key Hash", error["message"].replace("litellm_params.", ""))


def test_the_table_has_no_row_without_a_test() -> None:
    elsewhere = {"a body with `Content-Encoding`"}  # tests/integration/test_gateway_errors.py
    assert set(table()) == {*ROWS, *elsewhere}


@pytest.mark.parametrize(
    "wrapped",
    [
        f"litellm.BadRequestError: Hosted_vllmException - {json.dumps({'error': INNER})}{TAIL}",
        f"litellm.BadRequestError: OpenAIException - Error code: 400 - { ({'error': INNER}) }{TAIL}",
        f"400: { ({'error': INNER}) }",
        json.dumps(INNER),
    ],
)
def test_every_wrapping_comes_off(wrapped: str) -> None:
    right = {"message": INNER["message"], "type": "invalid_request_error", "param": "x", "code": "400"}
    assert answered(400, wrapped) == right


@pytest.mark.parametrize("text", ["TypeError: x is not it", "{not json", "[]", "", "Connection error. says a tool"])
def test_an_engines_words_are_left_alone(text: str) -> None:
    assert answered(400, json.dumps({"error": {**INNER, "message": text}}))["message"] == text


ONE = "{'type': 'bool_parsing', 'loc': 'body.logprobs', 'msg': 'Input should be a valid boolean', 'input': 'x'}"
FORMS = "{'type': 'string_type', 'loc': 'body.input', 'msg': 'a string', 'input': '<list of 2 items>'}"
FORM = "{'type': 'missing', 'loc': 'body.input.1.EasyInputMessageParam.content', 'msg': \"it's missing\", 'input': 'x'}"


@pytest.mark.parametrize(
    ("said", "message", "param"),
    [
        (f"1 validation error:\n  {ONE}", "logprobs: Input should be a valid boolean", "logprobs"),
        (f"1 validation erroREDACTED  {ONE}", "logprobs: Input should be a valid boolean", "logprobs"),
        (
            f"236 validation errorREDACTED  {FORMS}\n  {FORM}",
            "input.1: it has none of the forms that the engine knows",
            "input.1",
        ),
        ("no such format (parameter=response_format, value=x)", "no such format", "x"),
    ],
)
def test_what_pydantic_says_of_a_request_is_one_sentence(said: str, message: str, param: str) -> None:
    """LiteLLM takes "errors:" for a secret; of one item that is wrong vLLM tells 236 ways to be right."""
    error = answered(400, json.dumps({"error": {**INNER, "message": said}}))
    assert (error["message"], error["param"]) == (message, param)


def test_arguments_that_are_no_object_are_said_to_be_so() -> None:
    """Anthropic's API has objects only; small models write numbers."""
    text = "1 validation error for AnthropicResponseContentBlockToolUse\ninput\n  Input should be a valid dictionary"
    assert "give the tool strict: true" in answered(500, text)["message"]


def test_a_failed_response_in_a_stream_has_words_too() -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": DROPPED}}}
    event = f"event: response.failed\ndata: {json.dumps(failed)}\n\n".encode()
    said = Stream("/v1/responses").event(event, None)
    assert b"the engine ended" in said
    assert said.endswith(b"\n\n")


def test_a_model_without_a_mode_is_let_through() -> None:
    assert refusal("a", "aembedding", {"model_info": {}}) is None
    assert refusal("a", "acompletion", {"messages": [{"content": [{"type": "image_url"}]}]}) is None
