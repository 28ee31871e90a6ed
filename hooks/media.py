"""Pictures, sounds and files that a request names by URL: where they stand, and what stands there instead. Pure.

An engine that gets a URL fetches it itself, from wherever it leads. So a URL is either replaced by what the gateway has
fetched, or the request is refused: what is neither data nor a URL is handed on nowhere.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OF_URLS = frozenset({"image_url", "audio_url", "video_url", "file_url"})
"""Keys with a URL, or an object that has one as ``url``: of chat completions, responses, and engines' own."""

OF_DATA = frozenset({"file_data", "file_id", "data", "image", "audio", "video", "input_image", "input_audio"})
"""Keys with data or an id, where some server or other takes a URL, too."""

NOT_OURS = frozenset(
    {"tools", "functions", "tool_choice", "response_format"}
    | {"metadata", "litellm_metadata", "proxy_server_request", "secret_fields", "model_info"}
    | {"headers", "extra_headers"}
)
"""Arguments of a call that no engine takes pictures from: descriptions of tools, and LiteLLM's own."""

TOOL_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""Anthropic's calls of tools: their ``input`` is what a model has made up for a program."""

_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://|file:)", re.IGNORECASE)


@dataclass(frozen=True)
class Media:
    """What was fetched."""

    kind: str
    """The media type, as ``image/png``."""
    content: bytes

    @property
    def base64(self) -> str:
        """The content."""
        return base64.b64encode(self.content).decode()

    @property
    def url(self) -> str:
        """A URL that holds the content itself."""
        return f"data:{self.kind};base64,{self.base64}"


Found = Callable[[str], Media | None]


def urls(arguments: Mapping[str, Any]) -> list[str]:
    """The URLs in the arguments of one of LiteLLM's calls, each once, in their order."""
    seen: dict[str, None] = {}

    def note(url: str) -> None:
        seen.setdefault(url)

    for value in _parts(arguments).values():
        _walk(value, note)
    return list(seen)


def replaced(arguments: Mapping[str, Any], found: Mapping[str, Media]) -> dict[str, Any]:
    """Those of ``arguments`` that had URLs, with what was ``found`` in their place; the originals stay as they are."""
    return {name: _walk(value, found.get) for name, value in _parts(arguments).items()}


def _parts(arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in arguments if name not in NOT_OURS and not name.startswith("litellm_")]
    return {name: arguments[name] for name in names if isinstance(arguments[name], list | dict)}


def _walk(value: Any, found: Found) -> Any:
    """``value``, with each URL replaced for which there is something."""
    if isinstance(value, list):
        return [_walk(it, found) for it in value]
    if not isinstance(value, dict):
        return value
    result: dict[Any, Any] = {}
    for key, it in value.items():
        if key == "input" and str(value.get("type")) in TOOL_CALLS:
            result[key] = it
        elif key == "source" and isinstance(it, dict) and it.get("type") == "url" and isinstance(it.get("url"), str):
            result[key] = _source(it, found)
        elif key in OF_URLS:
            result[key] = _reference(it, found)
        elif key in OF_DATA and isinstance(it, str):
            name = "file_data" if key == "file_id" and _URL.match(it) else key
            result[name] = _put(it, found) if _URL.match(it) else it
        else:
            result[key] = _walk(it, found)
    return result


def _reference(value: Any, found: Found) -> Any:
    """A URL, an object that has one, or several."""
    if isinstance(value, str):
        return value if _DATA.match(value) else _put(value, found)
    if isinstance(value, list):
        return [_reference(it, found) for it in value]
    if isinstance(value, dict) and isinstance(value.get("url"), str):
        return {**value, "url": _reference(value["url"], found)}
    return _walk(value, found)


def _source(source: dict[str, Any], found: Found) -> dict[str, Any]:
    """Anthropic's: data has a form of its own."""
    media = None if _DATA.match(source["url"]) else found(source["url"])
    return source if media is None else {"type": "base64", "media_type": media.kind, "data": media.base64}


def _put(url: str, found: Found) -> str:
    media = found(url)
    return url if media is None else media.url
