"""A script for the CUDA environment: what vLLM makes of the arguments of engines, up to where it needs a card.

    ENGINE_PYTHON probes/engines.py JOB ANSWER

JOB: a list of {"name", "argv"}, arguments as the launcher passes them. For each: parsed and checked as the server
does it, its model built without memory (so every choice of a kernel or a backend is the one that a start makes), and
its KV cache planned by vLLM. ANSWER: a list of {"name", "error"} or {"name", ...}, sizes in bytes.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.flashinfer import has_flashinfer
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import FullAttentionSpec

JOB, ANSWER = (Path(word) for word in sys.argv[1:3])  # vLLM gets arguments of its own
LAUNCHERS = Path(__file__).resolve().parents[3] / "launchers" / "vllm"

MANY_TOKENS = 2**24


def warm(folders: set[str]) -> None:
    """As the engine host does it: else vLLM looks at each architecture in another process, with all its imports."""
    sys.path.append(str(LAUNCHERS))
    internals = importlib.import_module("host.internals")
    for folder in sorted(folders):
        internals.warm(folder)


def configuration(argv: list[str]) -> Any:
    """vLLM's configuration, made as its server makes it."""
    sys.argv = ["vllm", *argv]
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    validate_parsed_serve_args(arguments)
    return AsyncEngineArgs.from_cli_args(arguments).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)


def build(config: Any) -> Any:
    """The model on torch's device without memory."""
    if not parallel_state.model_parallel_is_initialized():
        store = ANSWER.with_suffix(f".{os.getpid()}")  # for as long as the process lives
        parallel_state.init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        parallel_state.initialize_model_parallel(1, 1)
    with torch.device("meta"), set_default_torch_dtype(config.model_config.dtype):
        return initialize_model(config)


def kernels(model: Any) -> dict[str, list[str]]:
    """What computes the model's layers, by kind."""
    linear: Counter[str] = Counter()
    attention: Counter[str] = Counter()
    encoder: Counter[str] = Counter()
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        for it in (getattr(method, "kernel", None), getattr(module, "scheme", None)):
            if it is not None:
                linear[type(it).__name__] += 1
        backend = getattr(module, "attn_backend", None)
        if isinstance(backend, type):
            attention[backend.get_name()] += 1
        elif backend is not None:
            encoder[backend.name] += 1
    return {"linear": [*linear], "attention": [*attention], "encoder": [*encoder]}


def cache(config: Any, size: int) -> dict[str, Any]:
    """What vLLM says of a KV cache of ``size`` bytes: its blocks, and the longest request; or why it refuses."""
    # The backend sets the layout where there is a card; all of them keep as many bytes.
    config.cache_config.kv_cache_layout = "LBNHC"
    layers = config.compilation_config.static_forward_context.items()
    keeping = {name: layer.get_kv_cache_spec(config) for name, layer in layers if hasattr(layer, "get_kv_cache_spec")}
    specs = {name: spec for name, spec in keeping.items() if spec is not None}
    groups = kv_cache_utils.get_kv_cache_groups(config, specs)
    block = sum(spec.page_size_bytes for spec in specs.values())
    asked, config.model_config.max_model_len = config.model_config.max_model_len, MANY_TOKENS  # it goes no further
    longest = kv_cache_utils._estimate_max_model_len_from_groups(config, groups, size - block)
    config.model_config.max_model_len = asked
    found = {"block_bytes": block, "block_tokens": config.cache_config.block_size, "longest": longest}
    found["plain"] = all(type(spec) is FullAttentionSpec for spec in specs.values())
    try:
        (planned,) = kv_cache_utils.get_kv_cache_configs(config, [specs], [size])
    except ValueError as error:
        return {**found, "refused": str(error)}
    return {**found, "blocks": planned.num_blocks}


def engine(job: dict[str, Any]) -> dict[str, Any]:
    """Everything of one engine."""
    began = time.monotonic()
    config = configuration(job["argv"])
    took = time.monotonic() - began
    with set_current_vllm_config(config):
        model = build(config)
        size = config.cache_config.kv_cache_memory_bytes
        needed = job.get("least_cache")
        return {
            "config_s": took,
            "dtype": str(config.model_config.dtype),
            "quantization": config.model_config.quantization,
            "sleeps": config.model_config.enable_sleep_mode and config.model_config.enable_cumem_allocator,
            "second_runner": config.use_v2_model_runner,
            "max_model_len": config.model_config.max_model_len,
            "weights": total(model.parameters()),
            "tables": total(model.buffers()),
            **kernels(model),
            "cache": cache(config, size),
            "least": cache(config, needed) if needed else None,
            "below": cache(config, needed - 1) if needed else None,
            "has_flashinfer": has_flashinfer(),
        }


def total(tensors: Any) -> int:
    """Their size together, each counted once."""
    return sum({id(it): it.numel() * it.element_size() for it in tensors}.values())


def main() -> None:
    """Answer the job."""
    answers, jobs = [], json.loads(JOB.read_text())
    warm({job["argv"][job["argv"].index("--model") + 1] for job in jobs})
    for job in jobs:
        try:
            answers.append({"name": job["name"], **engine(job)})
        except Exception as error:
            traceback.print_exc()
            answers.append({"name": job["name"], "error": f"{type(error).__name__}: {error}"})
    ANSWER.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
