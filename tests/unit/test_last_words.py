"""Why an engine ended, from its log: the cause, and not what those say who only heard of it.

``tests/data/failed_starts``: what vLLM 0.32 for the CPU wrote when it was made to fail, its frames thinned. What it
writes for CUDA was put together from its sources, and from those of the libraries that it calls.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.launchers.process.log import last_words, quoted

LOGS = Path(__file__).resolve().parents[1] / "data" / "failed_starts"

CAUSES = {
    "no-room-for-the-cache": "ValueError: To serve at least one request with the model's max seq len (1024)",
    "no-room-in-one-process": "ValueError: To serve at least one request with the model's max seq len (1024)",
    "memory-is-taken": "ValueError: Available memory on node 0 (20.44/22.46 GiB) on startup is less than desired",
    "broken-weights": "safetensors._safetensors_rust.SafetensorError: Error while deserializing header",
    "unknown-dtype": "entry.py: error: argument --dtype: invalid choice: 'float7'",
    "quantization": "1 validation error for VllmConfig: Value error, Cannot find the config file for awq",
    "too-long": "1 validation error for ModelConfig: Value error, User-specified max_model_len (10000000) is greater",
}

ON_A_CARD = [
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.47 GiB",
    "ValueError: Free memory on device cuda:0 (10.2/15.47 GiB) on startup is less than desired GPU memory utilization",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
    "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12020)",
    "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
    "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
]

AROUND = """\
(EngineCore pid=17) INFO 11-30 23:09:25 [gpu_model_runner.py:5080] Starting to load model /models/chat...
(EngineCore pid=17) ERROR 11-30 23:09:29 [core.py:1510] EngineCore failed to start.
(EngineCore pid=17) ERROR 11-30 23:09:29 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=17) ERROR 11-30 23:09:29 [core.py:1510]   File "/venv/vllm/v1/engine/core.py", line 1482, in run
(EngineCore pid=17) ERROR 11-30 23:09:29 [core.py:1510]     engine_core = EngineCoreProc(*args, **kwargs)
(EngineCore pid=17) ERROR 11-30 23:09:29 [core.py:1510] {cause}
Process EngineCore:
Traceback (most recent call last):
  File "/venv/vllm/v1/engine/core.py", line 1514, in run
    raise e
{cause}
[rank0]:[W1130 23:09:29.1 ProcessGroupNCCL.cpp:1553] Warning: destroy_process_group() was not called before exit
(APIServer pid=9) Traceback (most recent call last):
(APIServer pid=9)   File "/venv/vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup
(APIServer pid=9)     raise RuntimeError(
(APIServer pid=9) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
/python/multiprocessing/resource_tracker.py:254: UserWarning: There appear to be 1 leaked shared_memory objects
"""


def words(tmp_path: Path, text: str) -> str:
    file = tmp_path / "engine.log"
    file.write_text(text)
    return last_words(file)


@pytest.mark.parametrize("name", CAUSES)
def test_what_is_shown_of_a_failed_start_is_its_cause(name: str) -> None:
    said = last_words(LOGS / f"{name}.log")
    assert said.startswith(CAUSES[name])
    assert "root cause" not in said


def test_each_log_that_was_kept_is_tried() -> None:
    assert {path.stem for path in LOGS.iterdir()} == set(CAUSES)


@pytest.mark.parametrize("cause", ON_A_CARD)
def test_the_cause_on_a_card_is_shown(cause: str, tmp_path: Path) -> None:
    assert words(tmp_path, AROUND.format(cause=cause)) == cause


def test_the_remedy_that_vllm_gives_for_a_cache_without_room_is_not_cut_off() -> None:
    assert "Try increasing `gpu_memory_utilization`" in last_words(LOGS / "no-room-for-the-cache.log")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loading\ncudaMalloc failed: out of memory\nload: error loading model: unable to allocate CUDA0 buffer\n"
         "main: exiting due to model loading error\n", "load: error loading model: unable to allocate CUDA0 buffer"),
        ("Traceback (most recent call last):\n  File \"x.py\"\n    assert ready\n           ^^^^^\nAssertionError\n",
         "AssertionError: assert ready"),
        ("terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: launch failure\n",
         "what():  CUDA error: launch failure"),
        ("(EngineCore pid=1) INFO 11-30 23:09:29 [x.py:1] no error so far\nserving\n", "serving"),
        ("ValueError: old\n" + "serving\n" * 1000, "serving"),
        ("\n", ""),
        ("", ""),
    ],
    ids=["llama.cpp", "assertion", "C++", "calm", "long ago", "blank", "empty"],
)  # fmt: skip
def test_other_logs_end_with_their_last_trouble_or_else_their_last_line(text: str, shown: str, tmp_path: Path) -> None:
    assert words(tmp_path, text) == shown


def test_without_a_log_nothing_is_quoted(tmp_path: Path) -> None:
    assert quoted(tmp_path / "none.log") == ""
