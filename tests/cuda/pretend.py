"""The real CUDA environment on a machine without a card: pretend drivers, and questions to vLLM's own code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.nvml import compile_library, pretend_driver, with_driver

PROBES = Path(__file__).with_name("probes")
CUDA_SOURCE = Path(__file__).resolve().parents[1] / "fakes" / "cuda.c"
PROBE_S = 600.0
"""A probe imports vLLM, which takes half a minute on a slow disk, and builds models without their weights."""


@dataclass(frozen=True)
class Machine:
    """A machine with the environment of ``python`` and drivers in the folder ``drivers`` that only pretend."""

    python: Path
    drivers: Path
    folder: Path

    def environment(self, **nvml: str | int) -> dict[str, str]:
        """What a process needs to find the drivers and no toolkit; ``nvml``: what the card answers (see nvml.c)."""
        toolkit = str(self.folder / "no-toolkit")  # vLLM and FlashInfer look for nvcc here first, and nowhere else then
        calls = str(self.folder / "calls")
        return {**with_driver(self.drivers, **nvml), "FAKE_CUDA_LOG": calls, "CUDA_HOME": toolkit}

    def calls(self) -> list[tuple[int, str]]:
        """Every call of the CUDA driver so far: the process, and the function's name."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), name) for pid, _, name in (line.partition(" ") for line in lines)]

    def ask(self, probe: str, job: Any, env: Mapping[str, str], arguments: Sequence[str] = ()) -> Any:
        """Run a script of ``probes`` in the environment; ``job`` goes in, and what comes back is its answer."""
        question, answer = self.folder / "job.json", self.folder / "answer.json"
        question.write_text(json.dumps(job))
        answer.unlink(missing_ok=True)
        argv = [str(self.python), "-P", str(PROBES / f"{probe}.py"), str(question), str(answer), *arguments]
        done = subprocess.run(
            argv, env=dict(env), cwd=self.folder, capture_output=True, text=True, timeout=PROBE_S, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return json.loads(answer.read_text())


def machine(python: Path, folder: Path) -> Machine:
    """Build the drivers and be the machine."""
    drivers = pretend_driver(folder)
    compile_library(CUDA_SOURCE, "libcuda.so.1", drivers)
    return Machine(python, drivers, folder)
