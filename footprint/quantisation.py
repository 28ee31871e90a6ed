"""How many bits a weight takes, by ``quantization_config`` or by vLLM's ``--quantization``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GROUP = 128
"""Weights that share a scale, where the configuration does not say (AutoAWQ's and GPTQ's default)."""

SCALE_BITS = 16
"""A scale is stored in half precision (AutoAWQ, GPTQModel, compressed-tensors)."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """``name`` for people; ``bits`` per weight of a linear layer, scales and zeros included.

    ``stored``: the files have it already; else vLLM does it while it loads.
    """

    name: str
    bits: float
    stored: bool = True
    unknown: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether nothing is quantised."""
        return self.name in ("bf16", "fp32")


BF16 = Quantisation("bf16", 16)
FP8 = Quantisation("fp8", 8, stored=False)
AWQ = Quantisation("awq", 4 + SCALE_BITS / GROUP + 4 / GROUP)
"""4-bit weights, a scale and a 4-bit zero for each group: what this project advises first."""

BLOCK_FORMATS = {"mxfp4": 4 + 8 / 32, "nvfp4": 4 + 8 / 16, "bitsandbytes": 4 + 32 / 64}
"""Bits per weight with the scales of the format: MXFP4 8 bits per 32, NVFP4 8 per 16, bitsandbytes 32 per 64."""


def quantisation(config: Mapping[str, Any], flag: str | None, dtype: str) -> Quantisation:
    """What the weights are once loaded: ``config`` is a ``config.json``, ``flag`` and ``dtype`` are vLLM's."""
    text = config.get("text_config")
    raw = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)
    if isinstance(raw, dict):
        return _of_config(raw)
    if flag in ("fp8", "fp8_per_tensor", "fp8_per_block", "ptpc_fp8"):
        return FP8
    if flag in BLOCK_FORMATS:
        return Quantisation(flag, BLOCK_FORMATS[flag], stored=False)
    if flag is not None:
        unknown = f"--quantization {flag} without a quantization_config: taken as not quantised"
        return Quantisation("bf16", 16, unknown=(unknown,))
    return Quantisation("fp32", 32) if dtype in ("float", "float32") else BF16


def _of_config(raw: Mapping[str, Any]) -> Quantisation:
    method = str(raw.get("quant_method", "")).lower()
    if method in ("awq", "gptq", "auto-round", "gptq_marlin", "awq_marlin"):
        bits = _number(raw.get("bits", raw.get("w_bit")), 4)
        return _grouped(f"{method.split('_')[0]}-int{bits:g}" if bits != 4 else method.split("_")[0], bits, raw)
    if method in ("fp8", "fbgemm_fp8"):
        return Quantisation("fp8", 8)
    if method == "compressed-tensors":
        return _compressed(raw)
    if method == "modelopt":
        inner = raw.get("quantization")
        algorithm = str(raw.get("quant_algo") or (inner.get("quant_algo") if isinstance(inner, dict) else "")).lower()
        return Quantisation("nvfp4", BLOCK_FORMATS["nvfp4"]) if "fp4" in algorithm else Quantisation("fp8", 8)
    if method == "bitsandbytes":
        return Quantisation(method, 8 if raw.get("load_in_8bit") else BLOCK_FORMATS[method])
    if method in BLOCK_FORMATS:
        return Quantisation(method, BLOCK_FORMATS[method])
    bits = _number(raw.get("bits"), 16)
    return Quantisation(method or "unknown", bits, unknown=(f"the quantisation {method!r} is not one plan knows",))


def _compressed(raw: Mapping[str, Any]) -> Quantisation:
    groups = raw.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(weights, dict):
        return Quantisation("compressed-tensors", 16, unknown=("compressed-tensors without weights' num_bits",))
    bits = _number(weights.get("num_bits"), 8)
    name = f"{'fp' if weights.get('type') == 'float' else 'int'}{bits:g}"
    return _grouped(name, bits, weights) if weights.get("group_size") else Quantisation(name, bits)


def _grouped(name: str, bits: float, raw: Mapping[str, Any]) -> Quantisation:
    group = _number(raw.get("group_size", raw.get("q_group_size")), GROUP)
    return Quantisation(name, bits + (SCALE_BITS + bits) / group) if group > 0 else Quantisation(name, bits)


def _number(value: object, default: float) -> float:
    """``value`` if it is a plausible number of bits or of weights in a group; -1 is GPTQ's word for no groups."""
    plausible = isinstance(value, int | float) and not isinstance(value, bool) and (value == -1 or 0 < value <= 65_536)
    return float(value) if plausible else default  # type: ignore[arg-type]
