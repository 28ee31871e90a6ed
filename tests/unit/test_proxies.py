"""Proxies of the environment are for the way out: loopback goes past them, whoever reads the variables.

ollama/ollama#9141, BerriAI/litellm#2127: requests to a server on the same machine went to the office's proxy.
OpenHands/OpenHands-CLI#632: all_proxy=socks5://... ended in an ImportError.
"""

from __future__ import annotations

import urllib.request

import httpx
import pytest

from roundhouse.config import cors, proxies
from roundhouse.launchers.vllm.weights import NOISE, _remedy

OURS = ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://192.168.1.7:7000"]


@pytest.mark.parametrize(
    "theirs", [{}, {"no_proxy": ".office.example"}, {"NO_PROXY": "10.0.0.1"}, {"no_proxy": "a", "NO_PROXY": "b"}]
)
def test_loopback_and_our_own_address_go_past_a_proxy_beside_what_the_user_has(
    theirs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name, value in (theirs | proxies.bypassing(theirs, ["192.168.1.7"])).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        for url in OURS:
            assert urllib.request.proxy_bypass(httpx.URL(url).host), url
            assert client._transport_for_url(httpx.URL(url)) is client._transport, url
        assert client._transport_for_url(httpx.URL("http://example.com")) is not client._transport
    for host in ",".join(theirs.values()).split(","):
        assert not host or urllib.request.proxy_bypass(f"x{host}" if host.startswith(".") else host)


def test_everything_past_the_proxy_stays_so() -> None:
    assert "*" in proxies.bypassing({"no_proxy": "*"})["NO_PROXY"].split(",")


def test_a_socks_proxy_without_a_library_is_found_and_said_without_its_password() -> None:
    found = proxies.without_library({"ALL_PROXY": "socks5://me:secret@127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"})
    assert list(found) == ["ALL_PROXY"]
    assert proxies.said(found).startswith("ALL_PROXY names a SOCKS proxy")
    assert "secret" not in proxies.said(found)


def test_stand_ins_for_want_of_a_socks_library_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    assert "socksio" in _remedy()
    assert "noise" in NOISE


@pytest.mark.parametrize(
    ("setting", "passed_on"),
    [
        ("", ","),
        (" , ", ","),
        ("http://localhost:5173", "http://localhost:5173"),
        ("app://obsidian.md, https://a.example", "app://obsidian.md,https://a.example"),
        ("*", "*"),
    ],
)
def test_no_page_may_talk_to_the_gateway_unless_it_is_named(
    setting: str, passed_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cors.SETTING, setting)
    assert cors.origins() == passed_on


@pytest.mark.parametrize("wrong", ["localhost:5173", "http://localhost/", "http://a.example/path", "null"])
def test_what_is_no_origin_is_said(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cors.SETTING, f"https://a.example,{wrong}")
    with pytest.raises(ValueError, match=r"ROUNDHOUSE_CORS_ORIGINS has"):
        cors.origins()
