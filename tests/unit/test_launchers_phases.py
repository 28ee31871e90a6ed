"""Phases of a start, from lines that vLLM 0.32 wrote."""

from __future__ import annotations

import pytest

from roundhouse.launchers.base import Progress
from roundhouse.launchers.vllm.phases import goes_on, phase_of

API, CORE = "(APIServer pid=6522) INFO 11-23 22:09:55 ", "(EngineCore pid=6626) INFO 11-23 22:10:05 "


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (API + "[api_utils.py:286] non-default args: {'host': '127.0.0.1'}", Progress("importing")),
        (API + "[model.py:733] Resolved architecture: Qwen2ForCausalLM", Progress("importing")),
        (CORE + "[cpu_model_runner.py:68] Starting to load model tiny...", Progress("loading weights")),
        (
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 216.01it/s]",
            Progress("loading weights", 50.0),
        ),
        (CORE + "[default_loader.py:501] Loading weights took 0.01 seconds", Progress("loading weights")),
        (CORE + "[kv_cache_utils.py:2327] CPU KV cache size: 65,536 tokens", Progress("profiling")),
        (
            CORE + "[core.py:402] init engine (profile, create kv cache, warmup model) took 0.09 s",
            Progress("warming up"),
        ),
        (API + "[entry.py:140] Starting vLLM server on http://127.0.0.1:8955", Progress("warming up")),
        # Version 2 of the runner on CUDA does not say that it begins to load.
        (CORE + "[base_loader.py:82] Initializing model took 1.204000 seconds", Progress("loading weights")),
        (
            CORE + "[weight_utils.py:1108] Filesystem type for checkpoints: EXT4. Checkpoint size: 9.37 GiB. Available",
            Progress("loading weights"),
        ),
        (
            CORE + "[model_runner.py:424] Model loading took 9.29 GiB memory and 4.1 seconds",
            Progress("loading weights"),
        ),
        (CORE + "[monitor.py:40] Starting torch.compile", Progress("compiling")),
        (
            CORE + "[decorators.py:319] [language_model] Directly load AOT compilation from path /c",
            Progress("compiling"),
        ),
        (CORE + "[monitor.py:50] torch.compile took 21.30 s in total", Progress("compiling")),
        (CORE + "[monitor.py:91] Initial profiling/warmup run took 0.80 s", Progress("profiling")),
        (
            CORE
            + "[gpu_worker.py:669] Initial free memory 14.9 GiB, reserved 2.0 GiB memory for KV Cache as specified "
            "by kv_cache_memory_bytes config and skipped memory profiling.",
            Progress("profiling"),
        ),
        (CORE + "[kv_cache_utils.py:2327] GPU KV cache size: 74,896 tokens", Progress("profiling")),
        ("Capturing CUDA graphs (PIECEWISE):  50%|#####     | 5/10 [00:01<00:01,  4.87it/s]", Progress("warming up")),
        (CORE + "[kernel_warmup.py:189] JIT kernel warmup finished in 3.20s.", Progress("warming up")),
        (CORE + "[model_runner.py:1127] Graph capturing finished in 2 secs, took 0.21 GiB", Progress("warming up")),
        (API + "[compilation.py:317] Enabled custom fusions: norm_quant, act_quant", None),
        ("(APIServer pid=1) WARNING 11-23 22:09:55 [vllm.py:1703] Enforce eager set, disabling torch.compile", None),
        ("Triton is installed, but doesn't include CPU backend.", None),
    ],
)
def test_a_line_tells_its_phase(line: str, progress: Progress | None) -> None:
    assert phase_of(line) == progress


def test_a_start_never_goes_back() -> None:
    assert goes_on(Progress("importing"), Progress("loading weights", 10.0))
    assert goes_on(Progress("loading weights", 10.0), Progress("loading weights", 20.0))
    assert not goes_on(Progress("loading weights", 100.0), Progress("loading weights"))
    assert not goes_on(Progress("warming up"), Progress("importing"))
