"""smolagents: an agent that calls tools until it has an answer."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout

import openai
from cases import LONG, refused, run, said
from smolagents import ChatMessage, MessageRole, OpenAIServerModel, ToolCallingAgent, tool


def model(name: str, **more: object) -> OpenAIServerModel:
    return OpenAIServerModel(
        name, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_tokens=200, **more
    )


QUESTION = [ChatMessage(role=MessageRole.USER, content="Which files are there?")]


@tool
def list_files() -> str:
    """The files."""
    return "a.txt and b.txt"


def chat() -> None:
    said(model("reasoning").generate(QUESTION).content)


def stream() -> None:
    said(len([it for it in model("reasoning").generate_stream(QUESTION) if it.content]) > 1)


def tools() -> None:
    first = {"type": "function", "function": {"name": "list_files"}}
    last = {"type": "function", "function": {"name": "final_answer"}}
    choices = iter((first, last))

    class Led(OpenAIServerModel):
        """The model is led, for tiny ones with random weights choose no tool by themselves."""

        def _prepare_completion_kwargs(self, *args: object, **kwargs: object) -> dict[str, object]:
            body = super()._prepare_completion_kwargs(*args, **kwargs)
            for it in body["tools"]:
                it["function"]["strict"] = True  # then vLLM keeps the arguments to their schema
            return {**body, "tool_choice": next(choices)}

    led = Led(
        "reasoning", api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_tokens=LONG
    )
    agent = ToolCallingAgent(tools=[list_files], model=led, max_steps=2, verbosity_level=0)
    with redirect_stdout(io.StringIO()):
        agent.run("Which files are there?")
    called = [call.name for step in agent.memory.steps for call in getattr(step, "tool_calls", None) or ()]
    assert called[0] == "list_files", called
    assert "a.txt and b.txt" in str(agent.memory.steps[1].observations)


def errors() -> None:
    refused(openai.BadRequestError, lambda: model("reasonning").generate(QUESTION))


run("smolagents", chat, stream, tools, errors)
