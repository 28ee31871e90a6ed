"""Pictures by URL: fetched from where they may be, from a checked address, within bounds.

vllm-project/vllm#57157: redirects and private addresses were followed for whoever asked.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roundhouse.hooks import fetching, reach
from roundhouse.hooks.fetching import Fetcher, MediaRefused

pytestmark = pytest.mark.integration

PNG = b"\x89PNG picture"
NOBODY_LISTENS = "127.0.0.9"


class Site:
    """A web server on 127.0.0.1 and 127.0.0.2, that notes what it is asked."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []

    @property
    def at(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            path = head.split()[1]
            if path.startswith("/to/"):
                writer.write(f"HTTP/1.1 302 Found\r\nlocation: {path.removeprefix('/to/')}\r\n\r\n".encode())
            elif path == "/large":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")
                while not writer.is_closing():
                    writer.write(b"x" * 2**20)
                    await writer.drain()
            elif path == "/silent":
                await reader.read()
            elif path == "/missing":
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            else:
                kind = "text/html; charset=utf-8" if path == "/page" else "image/png"
                length = f"content-length: {len(PNG)}"
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode() + PNG)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    first = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
    site.port = first.sockets[0].getsockname()[1]
    async with first, await asyncio.start_server(site.serve, "127.0.0.2", site.port, ssl=tls):
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as it:
        yield it


class Names:
    """A name server whose answers for a name follow each other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> list[str]:
        if not self.answers:
            raise OSError("asked once too often")
        return self.answers.pop(0)


HERE = reach.parse("127.0.0.1, 127.0.0.9")


async def test_what_may_be_fetched_is_with_its_kind(site: Site) -> None:
    url = f"{site.at}/x.png?a=1#b"
    media = (await Fetcher(HERE).fetch([url], admin=False))[url]
    assert (media.kind, media.content) == ("image/png", PNG)
    assert site.heads[0].startswith("GET /x.png?a=1 ")


PRIVATE = (
    "localhost 127.0.0.1 127.1 2130706433 0x7f000001 017700000001 0177.0.0.1 127.0.0.1. 0.0.0.0 [::ffff:127.0.0.1]"
)


@pytest.mark.parametrize("host", [*PRIVATE.split(), "[::1]", "\u24ea.0.0.0", "127\u30020\u30020\u30021", "a@localhost"])
async def test_loopback_is_not_asked_however_it_is_written(site: Site, host: str) -> None:
    with pytest.raises(MediaRefused):
        await Fetcher(reach.parse("")).fetch([f"http://{host}:{site.port}/x.png"], admin=True)
    assert site.heads == []


async def test_every_address_of_a_name_has_to_be_one_that_may_be_reached(site: Site) -> None:
    names = Names(["127.0.0.1", "127.0.0.2"])
    with pytest.raises(MediaRefused, match="no public address"):
        await Fetcher(HERE, names).fetch([f"http://a.example:{site.port}/x.png"], admin=False)
    assert site.heads == []


async def test_an_unknown_name_and_a_private_one_are_refused_in_the_same_words(site: Site) -> None:
    said = []
    for names in (Names(), Names([]), Names(["10.0.0.1"]), Names(["x"])):
        with pytest.raises(MediaRefused) as caught:
            await Fetcher(HERE, names).fetch(["http://a.example/x.png"], admin=False)
        said.append(str(caught.value))
    assert len(set(said)) == 1


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing(site: Site) -> None:
    """DNS rebinding: the second answer would be a private address."""
    url = f"http://a.example:{site.port}/x.png"
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    assert (await Fetcher(HERE, names).fetch([url], admin=False))[url].content == PNG
    assert names.answers == [["127.0.0.2"]]
    assert f"host: a.example:{site.port}\r\n" in site.heads[0].lower()


@pytest.mark.parametrize("to", ["http://127.0.0.2:{port}/x.png", "//127.0.0.2:{port}/x.png", "file:///etc/passwd"])
async def test_a_redirect_is_checked_like_the_first_url(site: Site, to: str) -> None:
    with pytest.raises(MediaRefused):
        await Fetcher(HERE).fetch([f"{site.at}/to/{to.format(port=site.port)}"], admin=False)
    assert len(site.heads) == 1


async def test_a_redirect_to_where_one_may_go_is_followed(site: Site) -> None:
    url = f"{site.at}/to//x.png"
    assert (await Fetcher(HERE).fetch([url], admin=False))[url].content == PNG


async def test_an_address_that_cannot_be_reached_is_not_the_last(site: Site) -> None:
    url = f"http://a.example:{site.port}/x.png"
    names = Names([NOBODY_LISTENS, "127.0.0.1"])
    assert (await Fetcher(HERE, names).fetch([url], admin=False))[url].content == PNG


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("{at}/large", "larger than"),
        ("{at}/silent", "not there within"),
        ("{at}/missing", "status 404"),
        ("{at}/page", "a page"),
        ("{at}/to//to//to//to//to//to//to//x", "redirects"),
        ("http://127.0.0.9:{port}/x", "cannot be fetched"),
        ("file:///etc/passwd", "only http"),
        ("gopher://127.0.0.1/x", "only http"),
        ("x.png", "only http"),
        ("", "only http"),
        ("http://", "no public address"),
        ("http://[::1/x", "cannot be fetched"),
        ("http://127.0.0.1:99999/x", "no port"),
    ],
)
async def test_what_cannot_be_had_is_said(site: Site, url: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "DEADLINE_S", 0.5)
    monkeypatch.setattr(fetching, "MAX_BYTES", 2**21)
    with pytest.raises(MediaRefused, match=why):
        await Fetcher(HERE).fetch([url.format(at=site.at, port=site.port)], admin=False)


async def test_more_urls_than_are_fetched_for_one_request_are_none(site: Site) -> None:
    with pytest.raises(MediaRefused, match="at most"):
        await Fetcher(HERE).fetch([f"{site.at}/{n}" for n in range(fetching.MAX_URLS + 1)], admin=False)
    assert site.heads == []


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server called ``name`` and for a client that trusts its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(NOBODY_LISTENS))]
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file = folder / "site.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + text)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=file)


@pytest.mark.parametrize(("name", "good"), [("a.example", True), ("b.example", False)])
async def test_a_certificate_has_to_be_the_names_though_the_connection_is_to_an_address(
    name: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = certified(tmp_path, "a.example")
    monkeypatch.setattr(fetching, "_tls", lambda: client)
    async with serving(server) as site:
        url = f"https://{name}:{site.port}/x.png"
        fetch = Fetcher(HERE, Names(["127.0.0.1"])).fetch([url], admin=False)
        if good:
            assert (await fetch)[url].content == PNG
        else:
            with pytest.raises(MediaRefused, match="cannot be fetched"):
                await fetch
            assert site.heads == []
