"""How many bytes of weights `up` will download: of the models that the configuration names, those not here yet."""

import re
from collections.abc import Callable
from pathlib import Path

SIZES = {
    "Qwen/Qwen2.5-VL-7B-Instruct-AWQ": 6_924_000_000,
    "Qwen/Qwen2.5-14B-Instruct-AWQ": 9_980_000_000,
    "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ": 5_571_000_000,
    "Qwen/Qwen2.5-VL-3B-Instruct-AWQ": 3_402_000_000,
    "Qwen/Qwen2.5-3B-Instruct-AWQ": 2_064_000_000,
    "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ": 2_064_000_000,
    "Qwen/Qwen2.5-32B-Instruct-AWQ": 19_329_000_000,
}
"""Bytes of weights of what the set-ups for a card name, as the footprint computes them (a test compares)."""

WHOLE = 0.95
"""A model of which so much is here is here: sizes are rounded, and a full disk must not refuse what is complete."""


def models(config: Path) -> list[str]:
    """The models of known size that the YAML `config` names; none where it cannot be read.

    There is no YAML parser yet. A line that only looks like one counts a model too many, which does no harm.
    """
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    named = re.findall(r"^\s+model:\s*[\"']?([\w.-]+/[\w.-]+)", text, re.MULTILINE)
    return [name for name in dict.fromkeys(named) if name in SIZES]


def total(config: Path) -> int:
    """Bytes of the weights of all its models."""
    return sum(SIZES[name] for name in models(config))


def missing(config: Path, cache: Path) -> int:
    """Bytes that are still to be downloaded to the hub's `cache`."""
    left = {name: SIZES[name] - _here(cache / f"models--{name.replace('/', '--')}") for name in models(config)}
    return sum(size for name, size in left.items() if size > SIZES[name] * (1 - WHOLE))


def tiny_was_chosen(home: Path) -> bool:
    """Do tiny models stand in, as an earlier `up` has noted?"""
    try:
        return (home / "models" / "choice").read_text(encoding="utf-8").strip() == "tiny"
    except OSError:
        return False


def cache(setting: Callable[[str], str]) -> Path:
    """The hub's cache, as huggingface_hub finds it; `setting` answers with a variable's value, or ""."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := setting(name):
            return Path(chosen).expanduser()
    home = setting("HF_HOME") or f"{setting('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def _here(folder: Path) -> int:
    """Bytes of a model's folder, half downloads included; snapshots are links to blobs."""
    try:
        return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    except OSError:
        return 0
