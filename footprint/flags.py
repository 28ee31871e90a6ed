"""What of vLLM's arguments decides memory. Pure.

Names, defaults and number formats are those of vLLM 0.32 (``engine/arg_utils.py``, ``utils/argparse_utils.py``).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

UTILIZATION = 0.92
"""``--gpu-memory-utilization``'s default since vLLM 0.20."""

BATCHED_TOKENS, SEQUENCES = 2048, 256
"""``--max-num-batched-tokens`` and ``--max-num-seqs`` of the API server on cards below 70 GiB."""

BIG_CARD_BYTES, BIG_BATCHED_TOKENS, BIG_SEQUENCES = 70 * 2**30, 8192, 1024
"""And on cards from there on (an A100 of that size keeps the smaller ones: then less is needed than planned)."""

MULTIPLIERS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class FlagsError(ValueError):
    """An argument of vLLM's cannot be read. The text says which."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The arguments; ``None`` where vLLM decides by model or card.

    ``any_length``: ``--max-model-len=auto``: as long as the memory allows, whatever that is.
    """

    max_model_len: int | None = None
    any_length: bool = False
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float = UTILIZATION
    kv_cache_memory_bytes: int | None = None
    block_size: int | None = None
    quantization: str | None = None
    dtype: str = "auto"
    enforce_eager: bool = False
    offload_graphs: bool = False
    images: int | None = None
    max_pixels: int | None = None

    @property
    def kv_bits(self) -> int:
        """Bits of one number in the KV cache."""
        return 8 if self.kv_cache_dtype.startswith("fp8") or self.kv_cache_dtype == "int8" else 16

    def batched_tokens(self, total: int | None) -> int:
        """The tokens of one step, on a card of ``total`` bytes."""
        return self.max_num_batched_tokens or (BIG_BATCHED_TOKENS if _big(total) else BATCHED_TOKENS)

    def sequences(self, total: int | None) -> int:
        """The requests of one step, on a card of ``total`` bytes."""
        found = self.max_num_seqs or (BIG_SEQUENCES if _big(total) else SEQUENCES)
        return min(found, self.batched_tokens(total))


def _big(total: int | None) -> bool:
    return total is not None and total >= BIG_CARD_BYTES


def parse(args: Sequence[str]) -> Flags:
    """Read ``args``; what does not concern memory is passed by.

    Raises:
        FlagsError: a value is not what vLLM takes there.
    """
    try:
        known, _ = _parser().parse_known_args(list(_normal(args)))
    except argparse.ArgumentError as error:
        raise FlagsError(str(error).removeprefix("argument ")) from error
    eager = known.enforce_eager or known.optimization in ("0", 0)
    images, pixels = known.limit_mm_per_prompt.get("image"), known.mm_processor_kwargs.get("max_pixels")
    if isinstance(images, dict):  # {"image": {"count": 2, "width": ...}}
        images = images.get("count")
    return Flags(
        max_model_len=known.max_model_len or None,
        any_length=known.max_model_len == 0,
        kv_cache_dtype=known.kv_cache_dtype,
        max_num_seqs=known.max_num_seqs,
        max_num_batched_tokens=known.max_num_batched_tokens,
        gpu_memory_utilization=known.gpu_memory_utilization,
        kv_cache_memory_bytes=known.kv_cache_memory_bytes,
        block_size=known.block_size,
        quantization=known.quantization,
        dtype=known.dtype,
        enforce_eager=eager,
        offload_graphs=known.sleep_mode_offload_cudagraph and not eager,
        images=images if isinstance(images, int) else None,
        max_pixels=pixels if isinstance(pixels, int) and pixels > 0 else None,
    )


def _normal(args: Iterable[str]) -> Iterable[str]:
    """vLLM takes ``_`` for ``-`` in names, ``-O0``, and ``--name.key value`` for one key of a JSON argument."""
    for word in args:
        name, equals, value = word.partition("=")
        if re.fullmatch(r"-O\d", word):
            yield f"--optimization={word[2:]}"
            continue
        name = name.replace("_", "-") if name.startswith("--") else name
        dotted = re.fullmatch(r"(--limit-mm-per-prompt|--mm-processor-kwargs)\.([\w-]+)", name)
        if dotted and equals:
            yield f"{dotted[1]}={json.dumps({dotted[2].replace('-', '_'): int(value) if value.isdigit() else value})}"
        else:
            yield f"{name}{equals}{value}"


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", text.strip())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(float(match[1]) * MULTIPLIERS.get(match[2], 1))


def _length(text: str) -> int:
    return 0 if text in ("auto", "-1") else _size(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return share


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return found


class _Merge(argparse.Action):
    """A JSON argument that stands several times: its keys add up."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option_string: object = None
    ) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), **values})


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--max-model-len", type=_length)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--max-num-seqs", type=_size)
    parser.add_argument("--max-num-batched-tokens", type=_size)
    parser.add_argument("--gpu-memory-utilization", type=_share, default=UTILIZATION)
    parser.add_argument("--kv-cache-memory-bytes", type=_size)
    parser.add_argument("--block-size", type=_size)
    parser.add_argument("--quantization", "-q")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--sleep-mode-offload-cudagraph", action="store_true")
    parser.add_argument("--optimization", "--optimization-level", "-O")
    parser.add_argument("--limit-mm-per-prompt", type=_mapping, default={}, action=_Merge)
    parser.add_argument("--mm-processor-kwargs", type=_mapping, default={}, action=_Merge)
    return parser
