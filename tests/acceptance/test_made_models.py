"""The models that the suite for a card makes, on real vLLM: it loads one in AWQ's format, and again after level 2."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from roundhouse.config import paths
from roundhouse.footprint import estimate
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.registry import build_launcher
from tests.gpu import cycle, models

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "avx512f" not in Path("/proc/cpuinfo").read_text(),
        reason="vLLM's only kernel for four bits on a CPU (cpu_gemm_wna16) is built for AVX-512",
    ),
]

SMALL = """
import os, sys
from pathlib import Path
sys.path += sys.argv[1:3]
import make_models, tiny_models
os.environ.update(tiny_models.QUIET)
make_models.VOCABULARY = tiny_models.VOCABULARY
make_models.SHAPES["small-awq"] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}
make_models.make("small-awq", Path(sys.argv[3]), 1)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like the suite's, but tiny."""
    folder, here = tmp_path_factory.mktemp("made") / "small-awq", Path(models.__file__).parent
    argv = [paths.engine_python(), "-P", "-c", SMALL, here, here.parents[1] / "launchers" / "vllm", folder]
    subprocess.run(argv, check=True)
    return folder


async def test_a_model_stored_as_awq_answers_the_same_after_its_weights_were_read_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_KEY", cycle.KEY)
    assert estimate.of(str(made)).quantised.name == "awq"
    args = ["--dtype=auto", "--max-model-len=512", "--max-num-seqs=2", "--kv-cache-memory-bytes=64M", "--enforce-eager"]
    entry = models.entry("small-awq", made, args=args, host="off", sleep=2)
    engine = await build_launcher(entry).start(lambda progress: None)
    assert isinstance(engine, Child)
    try:
        before = await cycle.ask(entry, temperature=0)
        for _ in range(2):
            await engine.sleep(2)
            await engine.wake()
            assert await cycle.ask(entry, temperature=0) == before
        assert await cycle.ask(entry, **cycle.SAMPLING)
    finally:
        await engine.stop(force=True)
