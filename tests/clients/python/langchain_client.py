"""LangChain, with an agent of LangGraph's."""

from __future__ import annotations

import openai
from cases import LONG, TOOL_ANSWER, picture, refused, run, said
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

chat_model = ChatOpenAI(model="reasoning", max_tokens=40)


@tool
def list_files() -> str:
    """The files."""
    return TOOL_ANSWER


def chat() -> None:
    said(chat_model.invoke("Hello").content)


def stream() -> None:
    said(len([it for it in chat_model.stream("Hello") if it.content]) > 1)


def tools() -> None:
    asks = ChatOpenAI(model="reasoning", max_tokens=LONG).bind_tools(
        [list_files], tool_choice="list_files", strict=True
    )
    free = chat_model.bind_tools([list_files])
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [asks.invoke(state["messages"])]})
    graph.add_node("act", ToolNode([list_files]))
    graph.add_node("say", lambda state: {"messages": [free.invoke(state["messages"])]})
    for before, after in ((START, "ask"), ("ask", "act"), ("act", "say"), ("say", END)):
        graph.add_edge(before, after)
    said = graph.compile().invoke({"messages": [HumanMessage("Which files are there?")]})["messages"]
    assert [it.type for it in said] == ["human", "ai", "tool", "ai"]
    assert said[2].content == TOOL_ANSWER


class Light(BaseModel):
    """A light."""

    on: bool


def structured() -> None:
    light = ChatOpenAI(model="reasoning", max_tokens=LONG).with_structured_output(Light, method="json_schema")
    assert isinstance(light.invoke("Is it on?"), Light)


def embeddings() -> None:
    model = OpenAIEmbeddings(model="embedding", check_embedding_ctx_length=False)
    vectors = model.embed_documents(["one", "two"])
    assert len(vectors) == 2
    assert len(model.embed_query("one")) == len(vectors[0])


def vision() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture()}}]
    answer = ChatOpenAI(model="vision", max_tokens=8).invoke([HumanMessage(parts)])
    assert answer.usage_metadata["input_tokens"] > 100


def errors() -> None:
    refused(openai.BadRequestError, lambda: ChatOpenAI(model="reasonning").invoke("Hello"))


run("langchain-openai", chat, stream, tools, structured, embeddings, vision, errors)
