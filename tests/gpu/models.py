"""The models of the suite: those of the shipped set-up where their weights are here, else made on the spot.

Two forms: ``short``, some ten minutes with the models made on the spot, for a card that is there for an hour; and
``long``, every rung many times, for what shows only after many.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roundhouse.bench.stack import free_port
from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm.environment import ALLOCATOR, EXACT_PINNING
from roundhouse.launchers.vllm.weights import local_folder
from tests.gpu.make_models import SHAPES

Form = Literal["short", "long"]

SCRIPT = Path(__file__).with_name("make_models.py")
SHIPPED = Path(__file__).resolve().parents[2] / "litellm_config.yaml"

UTILIZATION = 0.02
"""vLLM asks for this share of the card to be free, though it takes what it needs. So small that it decides nothing, on
16 GiB nor on ten times as much: 2.8 GiB there, less than the smallest of these models takes."""

ARGS = (
    "--max-model-len=4096",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=2048",  # vLLM's own choice depends on the card
    "--kv-cache-memory-bytes=2G",
    f"--gpu-memory-utilization={UTILIZATION}",
    "--attention-backend=TRITON_ATTN",  # another one may have no kernels for the card, or seconds of imports
)

ROUND = (1, 1, 2, 2, 0)
MADE: dict[Form, tuple[str, ...]] = {"short": ("qwen2.5-7b-awq", "qwen2.5-1.5b"), "long": tuple(SHAPES)}
ROUNDS: dict[Form, tuple[int, ...]] = {"short": ROUND, "long": ROUND * 4}


@dataclass(frozen=True)
class Variant:
    """The same model with other flags: ``changes`` of its launcher, and the rounds that show what they do."""

    name: str
    rounds: tuple[int, ...]
    args: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()


VARIANTS = (
    Variant("as it is", (0,)),  # what the cycle lacks: a start that finds everything compiled
    Variant("without the engine host", (0,), changes=(("host", "off"),)),
    Variant("without CUDA graphs", (1, 2, 0), args=("--enforce-eager",)),
    Variant("CUDA graphs in RAM while asleep", (1, 2, 0), args=("--sleep-mode-offload-cudagraph",)),
    Variant("exact pinning", (1, 1, 2, 0), changes=(("env", {ALLOCATOR: EXACT_PINNING}),)),
)


@dataclass(frozen=True)
class Choice:
    """What is run: models, and of which of them the variants are."""

    entries: list[ModelEntry]
    subject: ModelEntry

    @property
    def variants(self) -> list[ModelEntry]:
        """The subject once for each of VARIANTS."""
        return [vary(self.subject, it) for it in VARIANTS]


def choose(form: Form, folder: Path) -> Choice:
    """The models of a form, in ``folder`` if they are made."""
    entries = real() if form == "long" else []
    return Choice(entries, by_size(entries)[0]) if entries else made(form, folder)


def real() -> list[ModelEntry]:
    """The shipped set-up's models, if the weights of all are on this machine."""
    entries = list(load_settings(SHIPPED).models.values())
    if all(it.launcher.kind == "vllm" and local_folder(it.launcher.model) is not None for it in entries):
        return entries
    return []


def made(form: Form, folder: Path) -> Choice:
    """Models of real shapes, made where they are missing: some 7 GB for the short form, 12 GB for the long one."""
    names = MADE[form]
    subprocess.run([paths.engine_python(), "-P", SCRIPT, folder, *names], check=True)
    entries = {name: entry(name, folder / name) for name in names}
    return Choice(list(entries.values()), entries["qwen2.5-7b-awq"])


def entry(name: str, folder: Path, **more: Any) -> ModelEntry:
    """A made model as the YAML would have it."""
    port = free_port()
    kind = "float16" if name.endswith("-awq") else "bfloat16"
    launcher = {"kind": "vllm", "port": port, "model": str(folder), "args": (*ARGS, f"--dtype={kind}"), **more}
    base = f"http://127.0.0.1:{port}/v1"
    return ModelEntry.model_validate(
        {"name": name, "served_name": name, "api_base": base, "device": "gpu0", "launcher": launcher}
    )


def vary(of: ModelEntry, it: Variant) -> ModelEntry:
    """The model with the variant's flags, on a port of its own."""
    launcher: Any = of.launcher
    changed = {"args": (*launcher.args, *it.args), "port": free_port(), **dict(it.changes)}
    return of.model_copy(update={"name": it.name, "launcher": launcher.model_copy(update=changed)})


def by_size(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Those first that are expected to take least of the card, so that two of them fit with room for others."""

    def awake(it: ModelEntry) -> int:
        expected = build_launcher(it).expected()
        return expected.awake if expected is not None else 0

    return sorted(entries, key=awake)
