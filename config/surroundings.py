"""The environment of a service is made, not inherited: a caller's shell is full of things that LiteLLM would use.

A provider's key or address in the shell of whoever starts a service would else become the gateway's own account, open
to everybody who has a key of ours. So a variable reaches a service only if it is on a list here, or stands in ``.env``,
or is named in the YAML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from roundhouse.config import paths

ANYBODY = (
    "PATH HOME USER LOGNAME SHELL PWD TMPDIR TEMP TMP TZ TERM LANG LANGUAGE LC_* XDG_* PYTHON*"
    " LD_LIBRARY_PATH LD_PRELOAD"
    # whoever is behind an office's proxy, or trusts an authority of the office
    " HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
    " SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS"
    " ROUNDHOUSE_*"
)
"""What a program needs to run, and ours. A trailing ``*`` stands for any rest of a name."""

SECRETS = "LITELLM_MASTER_KEY LITELLM_SALT_KEY REDIS_PASSWORD REDIS_URL DATABASE_URL"
"""By which the services find and know each other. Engines do not get them: launchers/process/environment.py."""

GATEWAY = (
    "UI_USERNAME UI_PASSWORD LITELLM_LOG LITELLM_LICENSE PROXY_BATCH_WRITE_AT PRISMA_QUERY_ENGINE_BINARY"
    # tokenizers; the hub's tokens are for weights, which the gateway has nothing to do with
    " HF_HOME HF_HUB_CACHE HF_ENDPOINT HF_HUB_OFFLINE TRANSFORMERS_OFFLINE TIKTOKEN_CACHE_DIR CUSTOM_TIKTOKEN_CACHE_DIR"
)
"""What the gateway has beside: settings of LiteLLM's that are documented with ours."""

RESIDENCY = (
    "HF_* HUGGINGFACE_* HUGGING_FACE_* TRANSFORMERS_* TOKENIZERS_* SAFETENSORS_* MODELSCOPE_*"
    " CUDA* NVIDIA_* NCCL_* CUBLAS_* CUDNN_* HIP_* ROCR_*"
    " VLLM_* TORCH* PYTORCH_* TRITON_* FLASHINFER_* FLASH_ATTN_* XFORMERS_* GGML_* LLAMA_*"
    " OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* NUMEXPR_* MALLOC_* TCMALLOC_* GLIBC_TUNABLES"
    " CC CXX CFLAGS CXXFLAGS LDFLAGS LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH MAX_JOBS"
)
"""What residency has beside, for the engines: weights, the card, libraries that are tuned by variables, a compiler."""

NEVER = "SERVER_ROOT_PATH SERVER_ROOT_PATHS"
"""LiteLLM would serve its routes under another path than the one that the gateway looks at; in ``.env`` neither."""


class Service(Enum):
    """Which of the services the environment is for."""

    GATEWAY = f"{ANYBODY} {SECRETS} {GATEWAY}"
    RESIDENCY = f"{ANYBODY} {SECRETS} {RESIDENCY}"
    SERVER = f"{ANYBODY} {SECRETS}"
    ALL = f"{ANYBODY} {SECRETS} {GATEWAY} {RESIDENCY}"
    """For ``up``, from which each service takes its own."""


_OF_LITELLM = re.compile(r"(?:os\.environ|oidc/env)/(\w+)")
_OF_LAUNCHERS = re.compile(r"\$\{(\w+)\}")
_INCLUDED = re.compile(r"^include:[ \t]*(?:#.*)?\n((?:[ \t]*(?:-.*|#.*)?\n?)+)", re.MULTILINE)
_FILE = re.compile(r"""^[ \t]*-[ \t]*['"]?([^'"#\n]+?)['"]?[ \t]*(?:#.*)?$""", re.MULTILINE)


def made(
    service: Service,
    environment: Mapping[str, str],
    env_file: Mapping[str, str],
    named: Collection[str],
    gateway: tuple[str, int] | None = None,
) -> dict[str, str]:
    """What ``service`` gets of ``environment``, of ``.env`` and of the names in the YAML.

    Of a name on the list the caller's value wins; of any other that of ``.env``. What the YAML names is taken from
    the caller, unless it leads back here: the master key, or the address (host, port) of our ``gateway``. A shell has
    those after ``eval "$(roundhouse env)"``, and a cloud model is not meant by them.
    """
    listed = _pattern(service.value)
    never = _pattern(NEVER)
    own = environment.get("LITELLM_MASTER_KEY") or env_file.get("LITELLM_MASTER_KEY")
    known = {name: value for name, value in environment.items() if listed.fullmatch(name)}
    wished = {
        name: environment[name]
        for name in named
        if name in environment and environment[name] != own and not leads_to(environment[name], gateway)
    }
    return {name: value for name, value in {**wished, **env_file, **known}.items() if not never.fullmatch(name)}


def _pattern(names: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in names.split()))


def address(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Where the gateway listens, host and port; ``None`` where the port is none, as others will say."""
    port = environment.get("ROUNDHOUSE_PORT") or str(paths.DEFAULT_PORT)
    host = (environment.get("ROUNDHOUSE_HOST") or "127.0.0.1").strip().strip("[]")  # an IPv6 address may have them
    return (host, int(port)) if port.isdigit() else None


def leads_to(url: str, gateway: tuple[str, int] | None) -> bool:
    """Whether ``url`` is at the ``gateway``, as far as its text tells: loopback has many names."""
    if gateway is None:
        return False
    host, port = gateway
    try:
        parts = urlsplit(url)
        theirs = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    name = (parts.hostname or "").rstrip(".")
    loopback = name in ("localhost", "::1", "0.0.0.0", "::") or name.startswith("127.") or name.endswith(".localhost")
    return theirs == port and (loopback or name == host)


def names(service: Service, text: str) -> set[str]:
    """What a YAML's ``text`` names for ``service``: in LiteLLM's way for the gateway, in launchers' for residency."""
    patterns = {
        Service.GATEWAY: (_OF_LITELLM,),
        Service.RESIDENCY: (_OF_LAUNCHERS,),
        Service.ALL: (_OF_LITELLM, _OF_LAUNCHERS),
    }
    return {name for pattern in patterns.get(service, ()) for name in pattern.findall(text)}


def texts(config: Path) -> Iterator[str]:
    """The YAML at ``config`` and those that it includes. One that cannot be read names nothing: others say so."""
    left, seen = [config], set[Path]()
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield text
        included = (name for files in _INCLUDED.findall(text) for name in _FILE.findall(files))
        left += [(folder / name).resolve() for name in included for folder in {path.parent, config.parent}]


def of_service(service: Service) -> dict[str, str]:
    """What ``service`` gets here and now. Reads ``.env`` and the YAML."""
    env_file = paths.env_file_settings()
    merged = env_file | os.environ
    named: set[str] = set()
    if service is not Service.SERVER:
        chosen = merged.get("ROUNDHOUSE_CONFIG")
        config = Path(chosen).expanduser().absolute() if chosen else paths.config_file()
        named = {name for text in texts(config) for name in names(service, text)}
    return made(service, os.environ, env_file, named, address(merged))


def enter(service: Service) -> None:
    """Have the environment of ``service`` from now on. Call it before anything else is imported that reads one."""
    environment = of_service(service)
    os.environ.clear()
    os.environ.update(environment)
