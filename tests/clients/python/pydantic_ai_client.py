"""pydantic-ai: an agent with tools and a typed answer."""

from __future__ import annotations

from cases import LONG, png, refused, run, said
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder, NativeOutput, ToolOutput, models
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.settings import ModelSettings

models.ALLOW_MODEL_REQUESTS = True
SHORT = ModelSettings(max_tokens=40)


def agent(name: str, **more: object) -> Agent:
    return Agent(OpenAIChatModel(name), **more)


def chat() -> None:
    said(agent("reasoning", model_settings=SHORT).run_sync("Hello").output)


def stream() -> None:
    import asyncio

    async def pieces() -> list[str]:
        async with agent("reasoning", model_settings=SHORT).run_stream("Hello") as answer:
            return [it async for it in answer.stream_text(delta=True, debounce_by=None)]

    said(len(asyncio.run(pieces())) > 1)


class Light(BaseModel):
    """A light."""

    on: bool


def tools() -> None:
    called: list[bool] = []
    output = ToolOutput(Light, strict=True)  # then vLLM keeps the arguments to their schema
    it = agent("reasoning", output_type=output, retries=5, model_settings=ModelSettings(max_tokens=LONG))

    @it.tool_plain(strict=True)
    def list_files() -> str:
        """The files."""
        called.append(True)
        return "a.txt and b.txt"

    answer = it.run_sync("Which files are there?")  # pydantic-ai wants a tool each time; the answer is one of them
    assert isinstance(answer.output, Light)


def structured() -> None:
    it = agent("reasoning", output_type=NativeOutput(Light), model_settings=ModelSettings(max_tokens=LONG))
    assert isinstance(it.run_sync("Is it on?").output, Light)


def embeddings() -> None:
    vectors = Embedder("openai:embedding").embed_documents_sync(["one", "two"]).embeddings
    assert len(vectors) == 2
    assert len(vectors[0]) > 8


def vision() -> None:
    picture = BinaryContent(data=png(), media_type="image/png")
    answer = agent("vision", model_settings=SHORT).run_sync(["What is this?", picture])
    assert answer.usage.input_tokens > 100


def errors() -> None:
    refused(ModelHTTPError, lambda: agent("reasonning").run_sync("Hello"))


run("pydantic-ai-slim", chat, stream, tools, structured, embeddings, vision, errors)
