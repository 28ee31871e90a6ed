"""LlamaIndex, by its classes for servers that are like OpenAI's."""

from __future__ import annotations

import os

import openai
from cases import LONG, TOOL_ANSWER, png, refused, run, said
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

ADDRESS = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}


def model(name: str, tokens: int) -> OpenAILike:
    return OpenAILike(
        model=name,
        max_tokens=tokens,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        strict=True,  # then vLLM keeps the arguments of tools to their schema
        context_window=4096,
        **ADDRESS,
    )


def list_files() -> str:
    """The files."""
    return TOOL_ANSWER


def chat() -> None:
    said(model("reasoning", 8).chat([ChatMessage("Hello")]).message.content)
    said(model("reasoning", 8).complete("Hello").text)


def stream() -> None:
    said(len([it for it in model("reasoning", 40).stream_chat([ChatMessage("Hello")]) if it.delta]) > 1)


def tools() -> None:
    tool = FunctionTool.from_defaults(list_files)
    answer = model("reasoning", LONG).predict_and_call([tool], "Which files are there?", tool_required=True)
    assert answer.sources[0].content == TOOL_ANSWER
    llm, question = model("reasoning", LONG), ChatMessage("Which files are there?")
    first = llm.chat_with_tools([tool], chat_history=[question], tool_required=True)
    call = llm.get_tool_calls_from_response(first)[0]
    result = ChatMessage(role="tool", content=TOOL_ANSWER, additional_kwargs={"tool_call_id": call.tool_id})
    assert model("reasoning", 8).chat_with_tools([tool], chat_history=[question, first.message, result]).message


class Light(BaseModel):
    """A light."""

    on: bool


def structured() -> None:
    answer = model("reasoning", LONG).as_structured_llm(Light).chat([ChatMessage("Is it on?")])
    assert isinstance(answer.raw, Light)


def embeddings() -> None:
    embedder = OpenAILikeEmbedding(model_name="embedding", **ADDRESS)
    vectors = embedder.get_text_embedding_batch(["one", "two"])
    assert len(vectors) == 2
    assert len(embedder.get_query_embedding("one")) == len(vectors[0])


def vision() -> None:
    blocks = [TextBlock(text="What is this?"), ImageBlock(image=png(), image_mimetype="image/png")]
    answer = model("vision", 8).chat([ChatMessage(role="user", blocks=blocks)])
    assert answer.raw.usage.prompt_tokens > 100


def errors() -> None:
    refused(openai.BadRequestError, lambda: model("reasonning", 8).chat([ChatMessage("Hello")]))


run("llama-index-llms-openai-like", chat, stream, tools, structured, embeddings, vision, errors)
